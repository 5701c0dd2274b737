"""AlpacaEval 2: files, judging, scores, length control."""
