"""The class that a configuration names, around functions in C: use = "passing:Pass"."""

import passthrough

from relaycore.element import Element


class Pass(Element):
    """Passes every byte on."""

    compiled = passthrough.functions
