"""The tables of a study file; each is also the options object of what it configures."""
