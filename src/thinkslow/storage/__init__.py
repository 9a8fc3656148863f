"""Files that are whole or not there: atomic replacement, named arrays."""
