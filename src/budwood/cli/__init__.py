"""The command line: thin commands, their options and what they print."""
