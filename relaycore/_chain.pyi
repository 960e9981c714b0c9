"""The elements of one flow: nothing of it is Python's to call."""
