"""What users install: the wheel, the source distribution, the units; and the guides, run as they are written."""
