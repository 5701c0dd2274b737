"""Keep every number that cost something once, under its content."""
