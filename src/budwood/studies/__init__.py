"""A study file to runs and their comparison: rows, searches, executors."""
