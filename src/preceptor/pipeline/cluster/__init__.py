"""Scoring on a Ray cluster: actors that each load a model once, and the driver that hands parts to them."""
