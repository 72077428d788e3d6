"""Running a network that is not trained: engines, and the cache of what they computed."""
