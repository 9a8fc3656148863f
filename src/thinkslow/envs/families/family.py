"""The facts of a family of environments that are known without importing its simulator."""

import dataclasses
import importlib
import importlib.util
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import gymnasium


def register(id: str, entry_point: str, **given: Any) -> None:
    """Register an environment with Gymnasium, unless its id is registered already.

    Gymnasium's own checks are left out: ours compare every observation with its space.

    Args:
        id: its id.
        entry_point: its class, `module:Class`.
        given: arguments of the class.
    """
    if id not in gymnasium.registry:
        gymnasium.register(
            id, entry_point, kwargs=given, order_enforce=False, disable_env_checker=True
        )


def chosen(**options: tuple[Any, Collection[Any]]) -> None:
    """Check options, each given with the values that it may have.

    **Errors:** `ValueError` for another value.

    >>> chosen(view=("top", ("first", "top")))
    """
    for name, (value, known) in options.items():
        if value not in known:
            raise ValueError(f"`{name}` must be one of {', '.join(known)}; got {value!r}.")


def _nothing(size: int) -> dict[str, Any]:
    return {}


def _as_it_is(env: gymnasium.Env, size: int) -> gymnasium.Env:
    return env


@dataclasses.dataclass(frozen=True)
class Family:
    """Environments that come from one Python package."""

    name: str
    pattern: str
    """A regular expression that matches the beginning of all its ids."""
    module: str
    """The module whose import registers the ids with Gymnasium."""
    packages: str
    """The packages to install with pip."""
    example: str
    """One of its ids."""
    extra: str | None = None
    """The extra of this package that installs it; None: it is always installed."""
    then: str = ""
    """What else must be done after the packages are installed."""
    needs: tuple[str, ...] = ()
    """Modules that are needed in addition to `module`."""
    libraries: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """System libraries besides those for rendering, each with its Debian package."""
    draws: Literal["", "pyglet", "mujoco"] = ""
    """Its renderer, if one must be chosen."""
    arguments: Callable[[int], dict[str, Any]] = _nothing
    """Arguments that make the simulator itself render at a given size."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of `dress` in addition to the constructor's, with their defaults."""
    dress: Callable[..., gymnasium.Env] = _as_it_is
    """Function that wraps each of its environments, given the size and `options`."""
    twins: tuple[str, str, str] | None = None
    """The option in which twins differ, with its values for a partial view (the default) and a full
    view.
    """
    registers: Callable[[], object] | None = None
    """Function that registers the ids with Gymnasium, if importing does not."""
    repeats: str | None = None
    """The constructor's argument with which the simulator repeats actions itself."""
    repeats_itself: bool = False
    """Whether the simulator repeats actions; otherwise its own repetition is switched off."""
    counter: str = ""
    """The attribute of its environments that says how often a step repeats its action."""
    clock: Callable[[Any], int] | None = None
    """Function that returns the number of frames that an environment has played."""
    pools: bool = False
    """Whether the shown frame is the maximum of the last two repeated frames, because some objects
    are drawn only in every other frame.
    """

    def has(self, id: str) -> bool:
        """Whether an id belongs to this family."""
        return re.match(self.pattern, id.rpartition(":")[2]) is not None

    @property
    def absent(self) -> str:
        """The first missing module, or an empty text. Nothing is imported."""
        modules = [one.partition(".")[0] for one in (self.module, *self.needs)]
        return next((one for one in modules if importlib.util.find_spec(one) is None), "")

    @property
    def installed(self) -> bool:
        """Whether its packages are installed. Nothing is imported."""
        return not self.absent

    def register(self) -> None:
        """Import the simulator, so that Gymnasium knows the ids."""
        importlib.import_module(self.module)
        if self.registers is not None:
            self.registers()

    def made(self, base: gymnasium.Env) -> bool:
        """Whether an environment, without wrappers, is of a class of its package."""
        package = self.module.partition(".")[0]
        return any(one.__module__.partition(".")[0] == package for one in type(base).__mro__)

    def ids(self) -> list[str]:
        """Its ids that are registered at present."""
        return sorted(id for id in gymnasium.registry if self.has(id))
