"""Put numbers on responses: each scorer is one file, and `base.py` is the protocol they share."""
