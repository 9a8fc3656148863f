"""Agents: how they act, how they think, and when."""
