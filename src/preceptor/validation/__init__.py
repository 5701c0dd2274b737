"""Validation: train on every teacher's responses, judge the answers, compare both orders."""
