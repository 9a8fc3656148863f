"""Kill a training run and an evaluation with SIGKILL at random instants: is anything lost?

Claim: a run that is killed and resumed ends with the same weights, bit for bit on a CPU, the same
agents and the same metrics.jsonl as one that was not; an evaluation ends with the same table. No
kill leaves a folder that cannot be gone on with, a temporary file after the next save, or a
process of an environment.

Method: CartPole-v1 and the smallest model that has every part of a Dreamer; two environments,
a save every 0.2 s. Each start is a process of its own, which is killed a random time of up to two
seconds after its first decision, so that kills fall into decisions, updates and saves alike; one
in ten at a random instant before that, while it reads, restores or compiles. A run that comes to
its end is compared with one that was never stopped, and the next begins. Milliseconds per
decision are left out of the comparison of tables: they are measured, not computed.

Reproduce: `uv run python scripts/kills.py --training 100 --evaluation 50` (`--seed S`;
`--folder DIR` keeps what was written, and takes what was never stopped from there). The exit code
is 1 if anything differs.
"""

import argparse
import collections
import dataclasses
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENVIRONMENT = "CartPole-v1"
STEPS, EPISODES = 400, 12
LONGEST_S = 2.0
"""After the first decision of a process, until it is killed."""
PATIENCE_S = 300.0
LEAVING_S = 30
"""A process that was just started looks for its parent after its imports, which may take this
long on a loaded machine."""
MEASURED = ("latency_ms", "latency_ms_mean", "latency_ms_p10", "latency_ms_p90")


class Progress:
    """A number that a child counts up and its parent reads."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    def set(self, value: int) -> None:
        self._memory[:8] = struct.pack("q", value)

    def get(self) -> int:
        return struct.unpack("q", self._memory[:8])[0]


def smallest() -> Any:
    """The sizes that compile fastest."""
    from thinkslow.dreamer.config import MLPConfig, ModelConfig

    small = MLPConfig(1, 16)
    return ModelConfig(
        deter=16,
        hidden=16,
        classes=4,
        stoch=4,
        blocks=2,
        depth=4,
        encoder=small,
        decoder=small,
        reward=small,
        continuation=small,
        policy=small,
        value=small,
        reward_bins=15,
        value_bins=15,
    )


def train(run: Path, progress: Progress) -> None:
    """Begin a run or go on with it, to its end."""
    from thinkslow.dreamer.config import TrainConfig
    from thinkslow.dreamer.training import trainer as module
    from thinkslow.dreamer.training.run import RunConfig
    from thinkslow.dreamer.training.trainer import Trainer

    model = smallest()
    learning = TrainConfig(
        batch_size=2,
        batch_length=4,
        imagination=3,
        imagination_starts=2,
        replay_ratio=1.0,
        replay_capacity=400,
        warmup=1,
        learning_rate=1e-3,
    )
    config = RunConfig(
        ENVIRONMENT, seed=5, environments=2, log_every=20, budgets=(100, 300), save_every=0.2
    )
    if (run / "config.json").exists():
        trainer = Trainer.resume(run)
    else:
        trainer = Trainer.begin(run, config, model, learning)
    use_compiled(trainer, module, run.parent / "programs")
    try:
        trainer.train(steps=STEPS, show=lambda seen: progress.set(seen.steps))
    finally:
        trainer.close()


def use_compiled(trainer: Any, module: Any, folder: Path) -> None:
    """Load the two programs of a run, which the first process compiled and wrote there.

    Tracing them takes three seconds of each start, and is of no interest here.
    """
    import jax
    from jax.experimental import serialize_executable

    learner, learning = trainer.learner, trainer.learning
    step, lead = trainer.step, (learning.batch_size, learning.batch_length + 1)
    rows = {
        name: jax.ShapeDtypeStruct((*lead, *shape), kind, sharding=trainer.spread)
        for name, (shape, kind) in trainer.replay.fields.items()
    }
    acts = (learner.model, trainer.carry, step.observation, step.is_first, trainer.act_key, 0)
    learns = (learner, rows, trainer.update_key, 0)
    if not folder.exists():
        # What comes out of JAX's own cache cannot be written again.
        jax.config.update("jax_enable_compilation_cache", False)
        act = module.act.lower(*acts).compile()
        update = module.update.lower(*learns, config=learning).compile()
        folder.mkdir()
        (folder / "act").write_bytes(serialize_executable.serialize(act)[0])
        (folder / "update").write_bytes(serialize_executable.serialize(update)[0])
        names = [
            sorted(part)
            for part in jax.eval_shape(
                lambda *given: module.update(*given, config=learning), *learns
            )[2:]
        ]
        (folder / "names").write_text(json.dumps(names))
    latents, metrics = (
        dict.fromkeys(part, 0) for part in json.loads((folder / "names").read_text())
    )
    programs = []
    updated = (learner, 0, latents, metrics)
    for name, given, back in (
        ("act", acts, (trainer.carry, 0, latents)),
        ("update", learns, updated),
    ):
        trees = jax.tree.structure((given, {})), jax.tree.structure(back)
        content = (folder / name).read_bytes()
        programs.append(serialize_executable.deserialize_and_load(content, *trees))
    act, update = programs
    module.act = act
    module.update = lambda one, rows, key, updates, config: update(one, rows, key, updates)
    trainer._compile = lambda steps: None


def play(out: Path, progress: Progress) -> None:
    """Begin an evaluation or go on with it, to its end."""
    import jax.random as jr

    import thinkslow
    from thinkslow.agent.abstract import About
    from thinkslow.dreamer.model import Dreamer
    from thinkslow.spaces import Space

    config = smallest()
    model = Dreamer(
        {"vector": Space((4,), "float32")},
        {"action": Space((), "int32", 2)},
        config,
        key=jr.key(0),
    )
    agent = thinkslow.Agent(model, about=About(name="tiny"))
    count = 0

    def show(*_: Any) -> None:
        nonlocal count
        count += 1
        progress.set(count)

    result = thinkslow.evaluate(
        {"none": agent, "entropy-3": agent.thinking("entropy-3")},
        ENVIRONMENT,
        episodes=EPISODES,
        seed=1,
        batch=2,
        out=out,
        show=show,
    )
    result.report()


def started(work: Callable[[Path, Progress], None], folder: Path, log: Path) -> tuple[int, Any]:
    """A process that does it. What all need was imported before, so that a start is quick."""
    from thinkslow.envs.worker import end_with

    progress, parent = Progress(), os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX has no threads yet
        child = os.fork()
    if child:
        return child, progress
    code = 1
    try:
        end_with(parent, kernel=True)
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        work(folder, progress)
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def children(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(one) for one in path.read_text().split()] if path.exists() else []


def alive(process: int) -> bool:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in "ZX"


def trained(run: Path) -> dict[str, str]:
    """Hashes of all that a finished run says: weights, experience, agents, metrics."""
    from thinkslow.storage import saves, store

    save = saves.latest(run / "saves")
    assert save is not None
    arrays, manifest = store.read(save)
    out = {
        f"save {name}": hashlib.sha256(array.tobytes()).hexdigest()
        for name, array in arrays.items()
    }
    # Who made it is no result: an edit of the code while this runs would count as a difference.
    apart = ("replay", "made_by")
    out["counters"] = repr({k: v for k, v in manifest["counters"].items() if k not in apart})
    for agent in sorted((run / "agents").iterdir()):
        weights = store.read(agent)[0]
        digest = hashlib.sha256(b"".join(weights[name].tobytes() for name in sorted(weights)))
        out[f"agent {agent.name}"] = digest.hexdigest()
    out["metrics"] = (run / "metrics.jsonl").read_text()
    return out


def played(out: Path) -> dict[str, str]:
    """All that a finished evaluation says, but for what was measured with a clock."""
    from thinkslow.evaluation import records

    found = records.read(out)
    rows = [
        {name: value for name, value in row.items() if name not in MEASURED} for row in found.rows()
    ]
    said = {f"{row['arm']} {row['episode']}": json.dumps(row, sort_keys=True) for row in rows}
    summary = json.loads((out / "summary.json").read_text())
    return said | {"table": json.dumps(untimed(summary), sort_keys=True)}


def untimed(value: Any) -> Any:
    """The same without what depends on a clock, or says when and by whom it was made."""
    if isinstance(value, dict):
        clock = ("latency", "ms", "sittings", "seconds", "time", "began", "cost")
        return {
            key: untimed(one)
            for key, one in value.items()
            if not any(word in key for word in clock)
        }
    if isinstance(value, list):
        return [
            untimed(one)
            for one in value
            if not (isinstance(one, dict) and any("latency" in str(x) for x in one.values()))
        ]
    return value


@dataclasses.dataclass
class Kind:
    name: str
    work: Callable[[Path, Progress], None]
    says: Callable[[Path], dict[str, str]]


KINDS = {
    "training": Kind("training", train, trained),
    "evaluation": Kind("evaluation", play, played),
}


def ended(child: int, log: Path) -> None:
    """**Errors:** `SystemExit` for a process that failed by itself."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            sys.exit(f"A process did not end; {log}")
        time.sleep(0.02)
    if found[1]:
        sys.exit(f"A process failed by itself ({found[1]}):\n{log.read_text()[-3000:]}")


def tried(kind: Kind, kills: int, seed: int, folder: Path) -> int:
    """Kill so many processes; returns how many differences there were."""
    log, rng = folder / f"{kind.name}-{seed}.log", random.Random(seed)
    whole = folder / f"{kind.name}-whole"
    begun = time.monotonic()
    if not whole.exists():
        child, _ = started(kind.work, whole, log)
        ended(child, log)
    expected = kind.says(whole)
    print(f"{kind.name}: never stopped, {time.monotonic() - begun:.0f} s", flush=True)
    counts: collections.Counter[str] = collections.Counter()
    bad, run = 0, 0
    while counts["kills"] < kills:
        run += 1
        target = folder / f"{kind.name}-{seed}-{run}"
        while True:
            child, progress = started(kind.work, target, log)
            early = rng.random() < 0.1
            began = moment = time.monotonic()
            over = False
            wait = rng.uniform(0, LONGEST_S)
            while True:
                done = os.waitpid(child, os.WNOHANG)
                if done[0]:
                    if done[1]:
                        sys.exit(f"It could not go on:\n{log.read_text()[-3000:]}")
                    over = True
                    break
                if not early and progress.get() == 0:
                    moment = time.monotonic()
                    if moment - began > PATIENCE_S:
                        sys.exit("too slow")
                if time.monotonic() - moment >= wait and counts["kills"] < kills:
                    break
                time.sleep(0.001)
            if over:
                break
            workers = children(child)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            counts["kills"] += 1
            counts["before the first decision"] += progress.get() == 0
            counts["a half-written folder or file was left"] += any(target.rglob("*.tmp-*"))
            for seconds in (3, LEAVING_S):
                deadline = time.monotonic() + seconds
                while any(map(alive, workers)) and time.monotonic() < deadline:
                    time.sleep(0.01)
                counts[f"processes left after {seconds} s"] += sum(map(alive, workers))
        found = kind.says(target)
        different = [
            key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)
        ]
        left = [str(path.relative_to(target)) for path in target.rglob("*.tmp-*")]
        counts["runs that came to their end"] += 1
        counts["differences"] += len(different)
        counts["temporary files at the end"] += len(left)
        bad += bool(different) + bool(left)
        if different or left:
            print(f"{kind.name}, run {run}: {different[:5]} {left[:5]}", flush=True)
        else:
            shutil.rmtree(target)
        said = ", ".join(f"{name}: {count}" for name, count in counts.items())
        print(f"{kind.name}: {said}, in {time.monotonic() - begun:.0f} s", flush=True)
    return bad + counts[f"processes left after {LEAVING_S} s"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--training", type=int, default=100)
    parser.add_argument("--evaluation", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import thinkslow.dreamer.training.trainer
    import thinkslow.evaluation.report.page  # noqa: F401

    bad = 0
    for name, kills in (("training", given.training), ("evaluation", given.evaluation)):
        if kills:
            bad += tried(KINDS[name], kills, given.seed, folder)
    if given.folder is None and not bad:
        shutil.rmtree(folder, ignore_errors=True)
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
