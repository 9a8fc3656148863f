"""Files that are either complete or absent: atomic replacement, named arrays."""
