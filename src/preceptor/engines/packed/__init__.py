"""Likelihoods and rewards of packed conversations, without padding."""
