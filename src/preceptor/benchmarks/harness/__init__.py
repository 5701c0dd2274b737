"""What `lm-eval` measures: whole models on its tasks."""
