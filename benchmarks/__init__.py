"""What is measured, and never asserted: `pytest benchmarks -s`."""
