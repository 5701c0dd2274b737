"""Refusing what is harmful, and nothing else."""
