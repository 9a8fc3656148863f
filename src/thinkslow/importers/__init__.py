"""Agents of other projects: one module per format, and the unpickler that runs nothing."""
