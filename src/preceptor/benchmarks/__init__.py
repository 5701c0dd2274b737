"""Benchmarks of fine-tuned students: questions, judges, verdicts, scores."""
