"""Files damaged in every way, and what Budwood promises of each: it is used rightly, or it is told."""
