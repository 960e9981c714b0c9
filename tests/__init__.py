"""The tests; see CONTRIBUTING for which directory a new one belongs in."""
