"""Arena-Hard v2.0: two categories, each against a baseline of its own."""
