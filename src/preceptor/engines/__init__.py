"""Run models: each engine is one file, and `base.py` holds the two protocols they implement."""
