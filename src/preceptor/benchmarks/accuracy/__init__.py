"""Answers held against references."""
