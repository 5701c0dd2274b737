"""Small tasks whose answers are checked, and teachers that answer them in ways of their own."""
