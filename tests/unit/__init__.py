"""Each module alone: mirrors the sources and needs nothing."""
