"""Gates: when to think."""
