"""Choices: how an action is chosen under a belief."""

from thinkslow.agent.choices.ascent import Ascent
from thinkslow.agent.choices.choice import Choice, Chosen, Facing, Likeliest
from thinkslow.agent.choices.values import Shuffled, Tempered, Values

__all__ = [
    "Ascent",
    "Choice",
    "Chosen",
    "Facing",
    "Likeliest",
    "Shuffled",
    "Tempered",
    "Values",
]
