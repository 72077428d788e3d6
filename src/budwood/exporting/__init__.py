"""Files that carry a run to where it is used."""
