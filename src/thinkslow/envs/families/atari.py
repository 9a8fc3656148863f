"""Atari 2600 by the Arcade Learning Environment. The package is GPL-2.0 and brings the games.

`ALE/*-v5` repeats each action 4 times itself and, with probability 0.25 in each frame, the action
before (`--env-option repeat_action_probability=0` for none). `--repeat 4` makes the same 4 frames
and shows the maximum of the last two.

`atari/*-v0` and `atari100k/*-v0` are the two settings of DreamerV3
(https://github.com/danijar/dreamerv3, `dreamerv3/configs.yaml`). The first was made for 96 by 96
pixels (`--size 96`), the second for 64 by 64. Each of their arguments is an `--env-option`.
"""

import collections
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image

from thinkslow.envs.families.family import Family, chosen, register

PRESETS: dict[str, dict[str, Any]] = {
    "atari": {"gray": True, "sticky": True, "actions": "all"},
    "atari100k": {"gray": False, "sticky": False, "actions": "needed"},
}
"""The differences of the settings from the defaults of `Atari`."""
STICKY = 0.25
"""Probability of the previous action in each frame, with `sticky=True`."""
GREY = np.array([0.299, 0.587, 0.114])
ACTIONS = {"all": "getLegalActionSet", "needed": "getMinimalActionSet"}
LIVES = ("unused", "reset")


class Atari(gymnasium.Env):
    """A game, prepared as DreamerV3 does.

    Args:
        game: the name of its ROM, such as `space_invaders`.
        size: side of the image, pixels, resized by area-weighted bilinear filtering.
        repeat: frames of a decision.
        pooling: the maximum of this many last frames of a decision is shown, because some games
            draw things only in every other frame.
        gray: one channel instead of three.
        sticky: whether the previous action replaces the chosen one, with a probability of
            0.25 in each frame; a number is another probability.
        noops: the largest number of frames without action at the beginning of an episode.
        actions: `all` 18 actions, or only those that the game uses (`needed`).
        lives: `unused`, or `reset`: the episode ends with each life.
        length: frames until an episode is truncated.

    **Errors:** `ValueError` for an impossible argument.
    """

    def __init__(
        self,
        game: str,
        *,
        size: int = 64,
        repeat: int = 4,
        pooling: int = 2,
        gray: bool = False,
        sticky: bool | float = False,
        noops: int = 30,
        actions: str = "needed",
        lives: str = "unused",
        length: int = 108_000,
    ):
        for name, value, least in (
            ("repeat", repeat, 1),
            ("pooling", pooling, 1),
            ("noops", noops, 0),
            ("length", length, 1),
        ):
            if value < least:
                raise ValueError(f"`{name}` must be {least} or more; got {value}.")
        chosen(actions=(actions, ACTIONS), lives=(lives, LIVES))
        chance = STICKY * sticky if isinstance(sticky, bool) else float(sticky)
        if not 0 <= chance < 1:
            raise ValueError(f"`sticky` must be true, false or from 0 to below 1; got {sticky}.")
        import ale_py  # pyright: ignore[reportMissingImports]
        from ale_py import roms  # pyright: ignore[reportMissingImports]

        self.rom = roms.get_rom_path(game)
        self.size, self.repeat, self.gray, self.noops = size, repeat, gray, noops
        self.lives, self.length = lives, length
        self.ale: Any = ale_py.ALEInterface()
        self.ale.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale.setFloat("repeat_action_probability", chance)
        self.ale.loadROM(self.rom)
        self.acts = getattr(self.ale, ACTIONS[actions])()
        self.nothing = ale_py.Action.NOOP
        self.frames: collections.deque[np.ndarray] = collections.deque(maxlen=pooling)
        self.action_space = spaces.Discrete(len(self.acts))
        self.observation_space = spaces.Box(0, 255, (size, size, 1 if gray else 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:  # the emulator accepts a seed only when a game is loaded
            self.ale.setInt("random_seed", int(self.np_random.integers(2**31)))
            self.ale.loadROM(self.rom)
        self.ale.reset_game()
        for _ in range(self.np_random.integers(self.noops + 1)):
            self.ale.act(self.nothing)
            if self.ale.game_over():
                self.ale.reset_game()
        self.frames.clear()
        self.frames.append(self.ale.getScreenRGB())
        self.duration, self.left = 0, self.ale.lives()
        return self._picture(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward, terminated, truncated = 0.0, False, False
        for frame in range(self.repeat):
            reward += self.ale.act(self.acts[action])
            self.duration += 1
            left, before = self.ale.lives(), self.left
            self.left = left
            lost = self.lives == "reset" and 0 < left < before
            terminated = bool(self.ale.game_over()) or lost
            truncated = self.duration >= self.length and not terminated
            over = terminated or truncated
            if over or frame >= self.repeat - (self.frames.maxlen or 1):
                self.frames.append(self.ale.getScreenRGB())
            if over:
                break
        return self._picture(), float(reward), terminated, truncated, {}

    def state(self) -> dict[str, Any]:
        """The complete state; `restore` restores it."""
        return {
            "emulator": self.ale.cloneState(include_rng=True),
            "frames": list(self.frames),
            "duration": self.duration,
            "left": self.left,
            "random": self.np_random.bit_generator.state,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the game to the state of `state`, from this or another instance."""
        self.ale.restoreState(state["emulator"])
        self.frames.clear()
        self.frames.extend(state["frames"])
        self.duration, self.left = state["duration"], state["left"]
        self.np_random.bit_generator.state = state["random"]

    def _picture(self) -> np.ndarray:
        image = Image.fromarray(np.maximum.reduce(list(self.frames)))
        array = np.asarray(image.resize((self.size, self.size), Image.Resampling.BILINEAR))
        return (array @ GREY).astype(np.uint8)[..., None] if self.gray else array


def _frames(env: Any) -> int:
    return env.ale.getFrameNumber()


def _register() -> None:
    import ale_py  # pyright: ignore[reportMissingImports]

    gymnasium.register_envs(ale_py)


def _register_presets() -> None:
    _register()
    games = {
        spec.name: spec.kwargs["game"]
        for id, spec in list(gymnasium.registry.items())
        if id.startswith("ALE/") and id.endswith("-v5")
    }
    for preset, given in PRESETS.items():
        for name, game in games.items():
            register(f"{preset}/{name}-v0", f"{__name__}:Atari", game=game, **given)


FAMILY = Family(
    "Atari",
    r"ALE/|\w+(NoFrameskip|Deterministic)-v[04]$",
    "ale_py",
    "ale-py",
    "ALE/Pong-v5",
    extra="atari",
    registers=_register,
    repeats="frameskip",
    counter="_frameskip",  # Gymnasium's AtariPreprocessing reads it, too
    clock=_frames,
    pools=True,
)
PRESET = Family(
    "Atari as DreamerV3",
    "atari(100k)?/",
    "ale_py",
    "ale-py",
    "atari100k/Boxing-v0",
    extra="atari",
    arguments=lambda size: {"size": size},
    registers=_register_presets,
    repeats="repeat",
    repeats_itself=True,
    clock=_frames,
)
