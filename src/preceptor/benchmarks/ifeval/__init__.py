"""Instructions whose keeping can be checked."""
