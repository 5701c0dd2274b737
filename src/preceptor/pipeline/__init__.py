"""Carry out a study: plan what is missing, score it, rank."""
