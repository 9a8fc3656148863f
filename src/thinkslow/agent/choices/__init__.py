"""Choices: how an action is chosen under a belief."""
