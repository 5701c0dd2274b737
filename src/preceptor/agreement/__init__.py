"""Agreement of a predicted and an observed order: correlation, intervals, tables."""
