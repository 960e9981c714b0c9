"""A compiled element that does nothing, so that what is measured is the way through the engine.

Owns: the peer `relay-sidecar-compiled`. Its function is one of the tests', which builds of this tree have.
Never here: an element that looks at its bytes.
"""

from relaycore import _probe_elements
from relaycore.element import Element


class CompiledPass(Element):
    """Both directions, as they are."""

    compiled = _probe_elements.passes
