"""Logits to figures: predictions, metrics, intervals, tests and checks of results."""
