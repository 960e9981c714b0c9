"""The Python layer, module by module: mirrors sidecar/. Needs no privilege; what binds, binds free ports on loopback."""
