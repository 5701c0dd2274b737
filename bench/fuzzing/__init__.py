"""Files that are damaged or hostile on purpose, and what must come of them; `bench/fuzz.py` runs it."""
