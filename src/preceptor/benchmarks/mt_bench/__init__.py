"""MT-Bench: marks of 1 to 10 for two turns."""
