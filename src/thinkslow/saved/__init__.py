"""Agents as folders: weights, a manifest, and the environment that it names."""
