"""The main path: train, test, predict, report, explain, each a sentence of calls."""
