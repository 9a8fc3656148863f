"""What is known of a family of environments before its simulator is touched."""

import dataclasses
import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import gymnasium


def _nothing(size: int) -> dict[str, Any]:
    return {}


def _as_it_is(env: gymnasium.Env, size: int) -> gymnasium.Env:
    return env


@dataclasses.dataclass(frozen=True)
class Family:
    """Environments that come from one Python package."""

    name: str
    pattern: str
    """A regular expression that all its ids match, from their beginning."""
    module: str
    """What to import so that Gymnasium knows the ids."""
    packages: str
    """What pip has to install."""
    example: str
    """One of its ids."""
    extra: str | None = None
    """The extra of this package that installs it; None: it comes with it."""
    then: str = ""
    """What is to do after installing the packages."""
    needs: tuple[str, ...] = ()
    """Modules that must be there beside `module`."""
    libraries: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """System libraries, each with its Debian package; those for rendering are known."""
    draws: Literal["", "pyglet", "mujoco"] = ""
    """What it draws with, where a way to draw must be chosen."""
    arguments: Callable[[int], dict[str, Any]] = _nothing
    """Arguments that make the simulator itself draw at a given size."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of `dress` beside the constructor's own, with their defaults."""
    dress: Callable[..., gymnasium.Env] = _as_it_is
    """What is put around each of its environments, given the size and `options`."""
    twins: tuple[str, str, str] | None = None
    """The option by which twins differ, and its values to see a part (the default) and all."""
    registers: Callable[[], object] | None = None
    """Makes Gymnasium know the ids, where importing does not."""
    repeats: str | None = None
    """The constructor's argument by which ids repeat actions themselves."""
    repeats_itself: bool = False
    """Whether repeating is left to the simulator; otherwise its own is switched off."""
    pools: bool = False
    """Whether what is shown after repeating is the maximum of the last two frames, because things
    are drawn in every other frame only."""

    def has(self, id: str) -> bool:
        """Whether an id is this family's."""
        return re.match(self.pattern, id.rpartition(":")[2]) is not None

    @property
    def absent(self) -> str:
        """The first of its modules that is not there, or nothing; none is imported."""
        modules = [one.partition(".")[0] for one in (self.module, *self.needs)]
        return next((one for one in modules if importlib.util.find_spec(one) is None), "")

    @property
    def installed(self) -> bool:
        """Whether its packages are there; nothing is imported."""
        return not self.absent

    def register(self) -> None:
        """Import the simulator, so that Gymnasium knows the ids."""
        importlib.import_module(self.module)
        if self.registers is not None:
            self.registers()

    def ids(self) -> list[str]:
        """Its ids that are registered now."""
        return sorted(id for id in gymnasium.registry if self.has(id))
