"""Find the right teacher for your base model before you pay for fine-tuning."""
