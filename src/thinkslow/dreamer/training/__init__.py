"""Training a Dreamer: replay, losses, one update, the run."""
