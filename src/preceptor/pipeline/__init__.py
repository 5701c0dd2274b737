"""The line from a study to its rankings: generate, load, plan, score, rank."""
