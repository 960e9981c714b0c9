"""The harness of `pytest benchmarks`: its arithmetic, its pages, its load generator. Nothing here is timed."""
