"""Atari 2600 by the Arcade Learning Environment. The package is GPL-2.0 and brings the games.

`ALE/*-v5` repeats each action 4 times itself and, with probability 0.25 in each frame, the action
before (`--env-option repeat_action_probability=0` for none). `--repeat 4` makes the same 4 frames.
"""

import gymnasium

from thinkslow.envs.families.family import Family


def _register() -> None:
    import ale_py  # pyright: ignore[reportMissingImports]

    gymnasium.register_envs(ale_py)


FAMILY = Family(
    "Atari", r"ALE/|\w+(NoFrameskip|Deterministic)-v[04]$", "ale_py", "ale-py", "ALE/Pong-v5",
    extra="atari", registers=_register, repeats="frameskip",
)  # fmt: skip
