"""Runs to one table: aligned predictions, paired tests, differences of recipes."""
