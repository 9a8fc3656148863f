"""File formats of other projects, read without running anything in them."""
