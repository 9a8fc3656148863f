"""Arms: named ways to think."""
