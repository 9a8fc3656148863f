"""ViZDoom: first-person tasks in the engine of Doom, drawn without a GPU.

The engine is a process of its own, which is ended with the worker that started it.
"""

from thinkslow.envs.families.family import Family

FAMILY = Family(
    "ViZDoom", "Vizdoom", "vizdoom.gymnasium_wrapper", "vizdoom", "VizdoomHealthGathering-v1",
    extra="vizdoom",
)  # fmt: skip
