"""The requirements of an environment, and how to install those that are missing.

Environments come in families, recognised by the start of their ids. A family needs a Python
package and sometimes system libraries. Missing ones are named, with the command that installs
them, before the simulator is imported.
"""

import difflib
import importlib
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium

from thinkslow.envs import rendering
from thinkslow.envs.failures import Mismatch, failure
from thinkslow.envs.families import FAMILIES
from thinkslow.envs.families.family import Family
from thinkslow.registry import either


class Unavailable(ValueError):
    """An environment cannot be made here; the message gives the reason and the remedy."""


class Prepared(NamedTuple):
    """How to make an environment."""

    arguments: dict[str, Any]
    """Arguments of its constructor that set the size of images and the repeats of actions."""
    repeat: int
    """Number of times that each action must still be repeated by a wrapper."""
    drawn: str = ""
    """Its renderer, for a family that chooses one."""


def prepare(id: str, *, size: int, repeat: int = 1, asked: Collection[str] = ()) -> Prepared:
    """Import the module that registers `id`, and find out how to make it.

    Args:
        id: the environment.
        size: width and height of its images, in pixels.
        repeat: number of times that each action is played.
        asked: arguments of the constructor from the user; they are not changed.

    **Errors:** `Unavailable` if a package or a library is missing, or if the id is not
    registered.
    """
    family = family_of(id)
    drawn = ""
    if family is not None:
        if family.absent:
            raise Unavailable(
                f"{id} needs the Python package {family.absent}, which is not installed here. "
                f"Install it: {how_to_install(family)}"
            )
        drawn = require_libraries(id, family)
        try:
            family.register()
        except Exception as error:  # a simulator may raise anything on import
            what = said(error, "import")
            raise Unavailable(f"Importing {family.module} failed: {what}") from error
    require_registered(id)
    if family is None:
        return Prepared({}, repeat)
    given = family.arguments(size)
    if family.repeats_itself and family.repeats and repeat > 1 and family.repeats not in asked:
        given, repeat = given | {family.repeats: repeat}, 1
    return Prepared(given, repeat, drawn)


def require_libraries(id: str, family: Family) -> str:
    """Choose a renderer and check the system's libraries. Returns a description of the renderer.

    **Errors:** `Unavailable` if a library is missing, with the command that installs it.
    """
    packages = [one for name, one in family.libraries.items() if not rendering.loads(name)]
    if packages:
        raise Unavailable(
            f"{id} needs {', '.join(packages)}, which this machine lacks. Install on Debian or "
            f"Ubuntu: {rendering.command(packages)}"
        )
    try:
        return rendering.RENDERERS[family.draws]() if family.draws else ""
    except rendering.Missing as missing:
        raise Unavailable(
            f"{id} draws with OpenGL and this machine lacks {missing}. Install on Debian or "
            f"Ubuntu: {rendering.command(missing.packages)}"
        ) from None


def how_to_install(family: Family) -> str:
    """The command that installs a family's packages, and what must be done after it."""
    return install(family.packages) + family.then


def family_of(id: str) -> Family | None:
    """The family of an id; None for the user's own environments.

    If a simulator repeats actions unless told otherwise, as Atari does, its module decides too: old
    ids, such as `ale_py:Pong-v4`, do so as well, and are told from others by nothing else.
    """
    module, _, name = id.rpartition(":")
    spec = gymnasium.registry.get(name)
    homes = {module, str(spec.entry_point).partition(".")[0] if spec else ""}
    named = (family for family in FAMILIES if family.has(id))
    counted = (one for one in FAMILIES if one.repeats and not one.repeats_itself)
    return next(named, None) or next((one for one in counted if one.module in homes), None)


def maker(env: gymnasium.Env, id: str) -> Family | None:
    """The family of an environment that was made; None for one of the user's.

    A registration, a function or a subclass of the user's may make one of a simulator's.
    """
    own = (family for family in FAMILIES if family.counter and family.made(env.unwrapped))
    return family_of(id) or next(own, None)


def factory(id: str) -> Callable[..., Any] | None:
    """The class or function named by `module:name`; None if `name` is a Gymnasium id."""
    module, _, name = id.rpartition(":")
    if not module or name in gymnasium.registry:
        return None
    found = getattr(load(module), name, None)
    return found if callable(found) else None


def require_registered(id: str) -> None:
    """Raise `Unavailable`, with the nearest ids, unless Gymnasium knows `id`.

    For `module:id`, the module is imported first, which registers the id.
    """
    module, _, name = id.rpartition(":")
    loaded = load(module) if module else None
    if factory(id) is not None:
        return
    try:
        gymnasium.spec(name)
    except gymnasium.error.Error as error:
        if loaded is not None:
            raise Unavailable(_lacking(loaded, module, name)) from error
        near = difflib.get_close_matches(name, sorted(gymnasium.registry), n=3, cutoff=0.5)
        hint = f"Did you mean {either(near)}?" if near else "No registered id is similar."
        raise Unavailable(
            f"There is no environment {id!r}. {hint} Environments of your own are reached as "
            "`module:id`, where importing the module registers the id, or as `module:function`."
        ) from error


def _lacking(loaded: Any, module: str, name: str) -> str:
    """What to say of a module that was imported and has no such environment."""
    makers = [one for one, value in vars(loaded).items() if callable(value) and one[0] != "_"]
    near = difflib.get_close_matches(name, [*makers, *gymnasium.registry], n=3, cutoff=0.6)
    hint = f"Did you mean {either(near)}?" if near else "Register it there, or name what it has."
    return (
        f"{module} ({getattr(loaded, '__file__', None) or 'of Python'}) registers no id {name!r} "
        f"and has no class or function of that name. {hint}"
    )


def load(module: str) -> Any:
    """Import the user's module, which may be in the working folder.

    **Errors:** `Unavailable` that names the failed import and the folders that were searched.
    """
    if "/" in module or module.startswith(".") or module.endswith(".py"):
        dotted = module.removesuffix(".py").strip("./").replace("/", ".")
        raise Unavailable(
            f"A module is named with dots and without .py, here {dotted}, and found from where you "
            f"start or on PYTHONPATH; got {module}."
        )
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last, so that it does not hide an installed package
    try:
        return importlib.import_module(module)
    except Exception as error:  # a module may raise anything on import
        if (
            isinstance(error, ModuleNotFoundError)
            and error.name is not None
            and (module == error.name or module.startswith(f"{error.name}."))
        ):
            looked = ", ".join(dict.fromkeys([here, *_own_folders()]))
            near = difflib.get_close_matches(error.name, _modules(here), n=2, cutoff=0.6)
            hint = f" Did you mean {either(near)}?" if near else ""
            raise Unavailable(
                f"There is no module {error.name}: looked in {looked} and in the installed "
                f"packages.{hint} Start in its folder, or put that on PYTHONPATH."
            ) from error
        raise Unavailable(f"Importing {module} failed: {said(error, 'import')}") from error


def _own_folders() -> list[str]:
    """The user's folders of PYTHONPATH, to which a worker adds all of its parent's path."""
    package = Path(__file__).parents[2]
    python = [Path(sys.prefix), Path(sys.base_prefix), package]
    given = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    return [one for one in given if not any(Path(one).is_relative_to(own) for own in python)]


def said(error: Exception, call: str) -> str:
    """An exception of a user's code in one line, with the package to install if one is missing."""
    text = failure(error, call).line
    if isinstance(error, ModuleNotFoundError) and error.name:
        text += f". Install the package that has it: {install(error.name.partition('.')[0])}"
    return text


def install(package: str) -> str:
    """The command that installs packages, with spaces between, for the Python that runs.

    In a clone with its own environment the command is uv, through the clone's script: the system's
    pip would install for another Python.
    """
    clone = Path(__file__).resolve().parents[3]
    package = " ".join(shlex.quote(one) for one in package.split())
    if (clone / "uvw").exists() and Path(sys.prefix).resolve() == clone / ".venv":
        script = "./uvw" if Path.cwd() == clone else str(clone / "uvw")
        return f"{script} pip install {package}"
    if importlib.util.find_spec("pip") is not None:
        return f"pip install {package}"
    return f"uv pip install --python {sys.executable} {package}"


def _modules(folder: str) -> list[str]:
    return [path.stem for path in Path(folder).glob("*.py")]


def closest(task: str, *, count: int = 3) -> list[str]:
    """Registered ids whose names are similar to another project's task, most similar first.

    >>> closest("gym_cartpole")[:2]
    ['CartPole-v0', 'CartPole-v1']
    """

    def bare(name: str) -> str:
        name = name.rpartition("/")[2].lower().replace("_", "")
        return name.rpartition("-v")[0] or name

    family, _, rest = task.partition("_")
    ids: dict[str, list[str]] = {}
    for id in sorted(gymnasium.registry):
        ids.setdefault(bare(id), []).append(id)
    wanted = (bare(task), bare(rest), bare(family))
    near = [name for want in wanted for name in difflib.get_close_matches(want, ids, cutoff=0.75)]
    return [id for name in dict.fromkeys(near) for id in ids[name]][:count]


def explained(id: str, error: Exception) -> str:
    """The message for an environment whose construction failed, with the cause first."""
    if isinstance(error, gymnasium.error.DependencyNotInstalled):
        return f"{id} needs a package that is not installed here. {installing(str(error))}"
    # What we say of an environment has no place in our own code.
    what = str(error) if isinstance(error, Mismatch) else said(error, "make")
    family = family_of(id)
    of_arguments = isinstance(error, TypeError | ValueError | KeyError)
    if family is not None and family.draws and not of_arguments:
        return (
            f"{id} could not open a renderer here: {what}. "
            "`thinkslow doctor` tries each step of rendering and says how to fix it."
        )
    return f"{id} could not be made. {what}"


def installing(text: str) -> str:
    """Gymnasium's own hint, `pip install x`, replaced by the command for this Python
    environment.
    """
    return re.sub(
        r"`?pip install ([\w.-]+\[[\w.,-]+\]|\\?\"[^\"]+\"|'[^']+'|[\w.-]+)`?",
        lambda found: f"`{install(found[1].strip(chr(39) + chr(34)))}`",
        text,
    )
