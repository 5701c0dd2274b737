"""Rewards from checking a response against its known answer."""
