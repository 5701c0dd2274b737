"""Arena-Hard v0.1: files, judging, scores."""
