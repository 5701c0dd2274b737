"""Show results to people: a table in a terminal, a page in a browser."""
