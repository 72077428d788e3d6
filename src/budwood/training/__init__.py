"""Pixels or features to a trained network: the loop, and what a step is made of."""
