"""What every test shares: how programs are compiled, strict types and promotion, tiny agents.

Nothing of `thinkslow` is imported at the top: the import hook that checks shapes and types
(`--jaxtyping-packages` in pyproject.toml) must be in place first.
"""

import gc
import importlib
import importlib.util
import os
import shutil
import signal
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Or each process that tests start would compile all modules that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Read by JAX when it is imported, here and in those processes.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ["THINKSLOW_CACHE"] = "off"
# Compilation is most of the time of these tests. These make it a quarter, and change no meaning.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
if tuple(map(int, version("jax").split(".")[:2])) < (0, 11):  # XLA aborts at a flag that it lost
    given = os.environ.get("XLA_FLAGS", "").split()
    faster = ["--xla_cpu_parallel_codegen_split_count=1", "--xla_cpu_use_fusion_emitters=false"]
    os.environ["XLA_FLAGS"] = " ".join([*given, *(flag for flag in faster if flag not in given)])

import jax
import jaxtyping
import pytest

if TYPE_CHECKING:
    from thinkslow.agent.agent import Agent
    from thinkslow.dreamer.model import Dreamer
    from thinkslow.dreamer.v1.model import V1Dreamer

collect_ignore = ["fakes"]
"""Stand-ins for simulators: whatever is collected is imported, and its folder put on the path."""
gc.set_threshold(100_000, 50, 100)
"""Programs are many objects that stay: looking for cycles among them is a tenth of the time."""
MOST_MAPS = 40_000
"""Memory maps above which programs are forgotten; Linux grants a process 65,530."""


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """Each compiled program keeps several memory maps, and all tests together compile too many.

    XLA then aborts. What is forgotten comes back from the cache on disk.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > MOST_MAPS:
        jax.clear_caches()


JUMPS = """
import itertools, time
hours, really = itertools.cycle([0, 9, -9, 300, -400]), time.time
time.time = lambda: really() + 3600 * next(hours)
"""


@pytest.fixture
def jumping_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock is set by hours and days at every look, in processes of environments too."""
    import time

    folder = tmp_path / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(JUMPS)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(time, "time", time.time)
    exec(JUMPS, {})


@pytest.fixture(scope="session")
def dreamer() -> "Dreamer":
    from helpers import tiny_dreamer

    return tiny_dreamer()


@pytest.fixture(scope="session")
def v1() -> "V1Dreamer":
    from helpers import tiny_v1

    return tiny_v1()


@pytest.fixture(scope="session")
def cart() -> "Agent":
    """An agent that balances no pole: its episodes are of some twenty decisions."""
    from helpers import tiny_dreamer

    from thinkslow.agent.abstract import About
    from thinkslow.agent.agent import Agent
    from thinkslow.spaces import Space

    model = tiny_dreamer(
        observations={"vector": Space((4,), "float32")},
        actions={"action": Space((), "int32", 2)},
        stoch=3,
        classes=4,
    )
    return Agent(model, about=About(name="cart"))


@pytest.fixture(scope="session")
def stream() -> list[tuple[dict[str, Any], Any]]:
    """Four observations of each environment; one of them begins anew on the way."""
    import numpy as np
    from decisions import BATCH

    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(4, BATCH, 16, 16, 3)).astype(np.uint8)
    first = np.zeros((4, BATCH), bool)
    first[0], first[2, 1] = True, True
    return [({"image": image}, flags) for image, flags in zip(images, first, strict=True)]


@pytest.fixture(scope="session")
def original(dreamer, tmp_path_factory) -> Path:
    """A random agent."""
    from thinkslow.saved import folder as checkpoint

    folder = tmp_path_factory.mktemp("agents") / "random"
    checkpoint.save(
        folder,
        dreamer,
        name="random",
        environment={"id": "thinkslow/CollectGoodObjects-v0", "size": 16, "repeat": 1},
        training={"steps": 0, "seed": 0, "preset": "none"},
    )
    return folder


@pytest.fixture
def agent(original, tmp_path) -> Path:
    """A copy to damage."""
    from thinkslow.storage import store

    folder = tmp_path / "agent"
    folder.mkdir()
    for name in (store.WEIGHTS, store.MANIFEST):
        (folder / name).write_bytes((original / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def environments() -> Iterator[None]:
    """Environments of the tests are found in the processes of a `VectorEnv`."""
    import odd_episodes

    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", odd_episodes.importable())
    yield
    patch.undo()


@pytest.fixture
def quick(monkeypatch) -> None:
    """Environments of an evaluation without processes of their own."""
    from odd_players import SideBySide

    from thinkslow.evaluation import protocol

    monkeypatch.setattr(protocol, "VectorEnv", SideBySide)


@pytest.fixture(scope="module")
def uninterrupted(environments, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """A run of 60 steps, and its weights."""
    from training import begin, finish

    run = tmp_path_factory.mktemp("whole") / "run"
    return run, finish(begin(run), 60)


@pytest.fixture
def hangups() -> Iterator[None]:
    """SIGHUP ends a process, also under `nohup`, which has it ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def strict() -> Iterator[None]:
    """No implicit promotion of types. Optax needs some inside, so this is asked for by name."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def untyped() -> Iterator[None]:
    """Without the checks of annotations: what a user meets who passes a wrong value."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision within one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium, driven by the packages of the group `browser`.

    Skipped without them, unless THINKSLOW_REQUIRE_BROWSER is set, as CI sets it.
    """
    chromium = shutil.which("chromium")
    missing = None if chromium else "chromium is not installed: apt-get install chromium"
    if importlib.util.find_spec("playwright") is None:
        missing = "playwright is not installed: ./uvw sync --group browser"
    if missing is not None:
        if os.environ.get("THINKSLOW_REQUIRE_BROWSER"):
            pytest.fail(missing)
        pytest.skip(missing)
    with importlib.import_module("playwright.sync_api").sync_playwright() as playwright:
        # Root, as in a container, may not have Chromium's sandbox; the page runs nothing.
        yield (it := playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]))
        it.close()
