"""Derive the sizes of an agent from the shapes of its weights, for each profile."""
