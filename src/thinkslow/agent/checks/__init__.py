"""Checks: which frames, and which parts of them, are used."""
