"""The command line: a file for each command, which parses, makes one call and prints."""
