"""Benchmarks of tuned students, scored from judgements that are already there."""
