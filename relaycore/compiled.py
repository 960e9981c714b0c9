"""Elements whose functions are compiled: they see every byte and never need the GIL. docs/elements-compiled.md has the way in.

Owns: where the header is. Who may touch it: whoever builds such an element.
Never here: the header itself (relay_element.h), its words for Cython (compiled.pxd), the calls (_compiled.pxd).
"""

from pathlib import Path


def get_include() -> str:
    """The folder of relay_element.h, for a compiler's search path."""
    return str(Path(__file__).with_name("include"))
