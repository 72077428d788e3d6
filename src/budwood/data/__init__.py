"""Files to images, labels and splits: a `Dataset`, and findings about it."""
