"""A run's folder: its record, its networks, and what is checked before it begins."""
