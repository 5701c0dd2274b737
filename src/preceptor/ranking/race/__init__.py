"""Races: which teacher is best, decided while the rows come in."""
