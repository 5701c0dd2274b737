"""Fine-tuning a student on chosen responses: a recipe, rows with labels, and one run of TRL's trainer."""
