"""The same questions, asked in other ways."""
