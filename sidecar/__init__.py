"""The Python side of relay-sidecar: it decides and explains; the engine (relaycore) moves the bytes.

Owns: the version, the one place where it is written.
Never here: anything else, since every command pays for importing it.
"""

__version__ = "0.1.0"
