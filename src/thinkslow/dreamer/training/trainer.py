"""Training a DreamerV3 agent: act, remember, learn, save; stop and go on at any moment.

A run is a folder:

    config.json     what was asked for, versions, git revision
    metrics.jsonl   one line per log step and one per finished episode
    tensorboard/    the same as events
    agents/STEPS/   the agent at the asked budgets
    latest/         all that is needed to go on exactly
    replay/         the experience, which `latest` points into
    log.txt         what the terminal showed

A run that is stopped and resumed gives the same weights, bit for bit on a CPU, as one that was
not: random keys are functions of the seed and of counters, and environments are brought back by
replaying the actions of their unfinished episode.
"""

import dataclasses
import json
import shlex
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.random as jr
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from thinkslow.agent.agent import Agent
from thinkslow.dreamer import saved as checkpoint
from thinkslow.dreamer.config import ModelConfig, TrainConfig
from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.nets import named, with_named
from thinkslow.dreamer.training import experience, learner
from thinkslow.dreamer.training.logs import Logs, log
from thinkslow.dreamer.training.replay import Replay
from thinkslow.envs import Step, VectorEnv
from thinkslow.storage import atomic, store


class Diverged(RuntimeError):
    """A loss was not finite; the state before it is saved."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A training run: what, where, with which sizes."""

    environment: str
    """Gymnasium id."""
    preset: str = "tiny"
    """Name of the model's size, for the records."""
    seed: int = 0
    """Of the weights, the environments and every sample."""
    environments: int = 4
    """Played side by side, one process each."""
    size: int = 64
    """Side of the images, pixels."""
    repeat: int = 1
    """Times that each action is repeated."""
    budgets: tuple[int, ...] = ()
    """Decisions at which the agent is kept under `agents/`."""
    log_every: int = 1000
    """Decisions between two lines of metrics."""
    save_every: float = 300.0
    """Seconds between two checkpoints."""

    def __post_init__(self) -> None:
        for name in ("environments", "size", "repeat", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be 1 or more; got {getattr(self, name)}.")


@dataclasses.dataclass
class Progress:
    """What a run shows while it goes on."""

    steps: int
    updates: int
    score: float
    """Mean of the last 20 episodes; NaN before the first."""


class Trainer:
    """One run in memory. Make it with `Trainer.begin` or `Trainer.resume`; then `train`."""

    def __init__(self, run: Path, config: RunConfig, model: ModelConfig, learning: TrainConfig):
        least = config.environments * (2 * learning.batch_length + 2)
        if learning.replay_capacity < least:
            raise ValueError(
                f"`replay_capacity` must hold two sequences of each environment, {least} steps; "
                f"got {learning.replay_capacity}."
            )
        self.run, self.config, self.learning = run, config, learning
        self.devices = _mesh(learning.batch_size)
        self.envs = VectorEnv(
            config.environment, config.environments, seed=config.seed,
            size=config.size, repeat=config.repeat,
        )  # fmt: skip
        key = jr.key(config.seed)
        weights_key, self.act_key, self.update_key = jr.split(key, 3)
        network = Dreamer(
            self.envs.observation_space, {"action": self.envs.action_space}, model, key=weights_key
        )
        self.learner = learner.start(network, learning)
        self.replay = Replay(
            experience.fields(network), streams=config.environments, path=run / "replay",
            capacity=learning.replay_capacity, mutable=experience.LATENTS,
        )  # fmt: skip
        self.rng = np.random.default_rng(config.seed)
        self.steps = self.updates = 0
        self.credit = 0.0
        self.scores: deque[float] = deque(maxlen=20)
        self.sums = np.zeros(config.environments)
        self.lengths = np.zeros(config.environments, int)
        self.last_metrics: Mapping[str, Any] = {}
        self.carry = Agent(network).start(config.environments)
        self.logs: Logs | None = None

    @classmethod
    def begin(
        cls, run: Path, config: RunConfig, model: ModelConfig, learning: TrainConfig
    ) -> "Trainer":
        """A new run.

        **Errors:** `FileExistsError` if the folder holds a run; those of the environment.
        """
        if (run / "config.json").exists():
            raise FileExistsError(
                f"{run} holds a run already. Pass --resume to go on with it, or another --run."
            )
        trainer = cls(run, config, model, learning)
        run.mkdir(parents=True, exist_ok=True)
        description = {
            "run": dataclasses.asdict(config), "model": dataclasses.asdict(model),
            "learning": dataclasses.asdict(learning), "command": shlex.join(sys.argv),
            **checkpoint.provenance(),
        }  # fmt: skip
        atomic.write_text(run / "config.json", json.dumps(description, indent=1))
        trainer.step = trainer.envs.reset()
        trainer.logs = Logs(run)
        return trainer

    @classmethod
    def resume(cls, run: Path) -> "Trainer":
        """The run as it was when it last saved.

        **Errors:** `store.Missing` if the folder holds no run; `store.Damaged`.
        """
        if not (run / "config.json").exists():
            raise store.Missing(
                f"{run} holds no run to resume: config.json is missing. Pass another --run."
            )
        try:
            described = json.loads((run / "config.json").read_text())
        except ValueError as error:
            raise store.Damaged(f"{run}/config.json is not JSON: {error}.") from error
        try:
            tuples = {"budgets": tuple(described["run"]["budgets"])}
            config = RunConfig(**described["run"] | tuples)
            percentiles = {"return_percentiles": tuple(described["learning"]["return_percentiles"])}
            learning = TrainConfig(**described["learning"] | percentiles)
            model = ModelConfig.from_json(described["model"])
        except (KeyError, TypeError, ValueError) as error:
            raise store.Damaged(
                f"{run}/config.json does not describe a run of this version: {error}."
            ) from error
        trainer = cls(run, config, model, learning)
        atomic.recover(run / "latest")
        if (run / "latest").exists():
            trainer._restore()
        else:  # killed before its first save: begin again
            trainer.step = trainer.envs.reset()
            trainer.logs = Logs(run)
        return trainer

    def train(
        self,
        *,
        steps: int | None = None,
        minutes: float | None = None,
        show: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """Go on until the run has made `steps` decisions, or for `minutes`; save at the end.

        Ctrl-C ends the run at the next decision, saved; a second one ends it at once.

        **Errors:** `Diverged` at a loss that is not finite, with the state before it saved.
        """
        begun = saved = time.monotonic()
        with _interruptible() as interrupted:
            while steps is None or self.steps < steps:
                now = time.monotonic()
                if interrupted() or (minutes is not None and now - begun >= 60 * minutes):
                    break
                if now - saved > self.config.save_every:
                    self.save()
                    saved = now
                self._advance()
                show(Progress(self.steps, self.updates, float(np.mean(self.scores or [np.nan]))))
            self.save()
            self.keep()
        if interrupted():
            raise KeyboardInterrupt

    def close(self) -> None:
        """End the environments' processes and the event file."""
        self.envs.close()
        if self.logs:
            self.logs.close()

    def _advance(self) -> None:
        """One decision in every environment, and the updates that it pays for."""
        keys = jr.split(jr.fold_in(self.act_key, self.steps), self.config.environments)
        step, model = self.step, self.learner.model
        self.carry, action, _ = Agent(model).act(
            self.carry, step.observation, step.is_first, keys=keys
        )
        self.replay.add(experience.row(step, self.carry, model.config.classes))
        self._count_episodes(step)
        self.step = self.envs.step(model.split(np.asarray(action))["action"])
        before = self.steps
        self.steps += self.config.environments
        self.credit += (
            self.config.environments * self.learning.replay_ratio
            / (self.learning.batch_size * self.learning.batch_length)
        )  # fmt: skip
        # A window is one step longer than a sequence: its first row is the starting state.
        ready = len(self.replay) // self.config.environments > 2 * self.learning.batch_length
        while ready and self.credit >= 1:
            self._learn()
            self.credit -= 1
        if not ready:
            self.credit = 0.0
        if (
            self.steps // self.config.log_every > before // self.config.log_every
            and self.last_metrics
        ):
            self._write_metrics()
        for budget in self.config.budgets:
            if before < budget <= self.steps:
                self.keep()

    def _learn(self) -> None:
        rows, indices = self.replay.sample(
            self.rng, self.learning.batch_size, self.learning.batch_length + 1
        )
        batch = jax.device_put(experience.batch(rows, self.learner.model), self.devices)
        key = jr.fold_in(self.update_key, self.updates)
        update = _update(self.learner, batch, key, config=self.learning)
        self.learner = update.learner
        self.updates += 1
        if not bool(update.finite):
            self.updates -= 1
            bad = [name for name, value in update.metrics.items() if not np.isfinite(value)]
            self.save()
            raise Diverged(
                f"Update {self.updates + 1} gave values that are not finite ({', '.join(bad)}); "
                f"the state before it is in {self.run / 'latest'}. "
                "Begin another run with a lower --learning.learning-rate."
            )
        self.last_metrics = update.metrics
        # Keep the refreshed latents, so that later sequences start from the present model.
        refreshed = experience.latents(update.states, self.learner.model.config.classes)
        self.replay.write(indices.part(1), refreshed)

    def _count_episodes(self, step: Step) -> None:
        self.sums = np.where(step.is_first, 0.0, self.sums) + step.reward
        self.lengths = np.where(step.is_first, 0, self.lengths + 1)
        for index in np.flatnonzero(step.is_last):
            self.scores.append(float(self.sums[index]))
            line = {
                "step": self.steps, "score": float(self.sums[index]),
                "length": int(self.lengths[index]), "crashed": bool(step.crashed[index]),
            }  # fmt: skip
            self._write({"episode": line}, {"score": line["score"], "length": line["length"]})

    def _write_metrics(self) -> None:
        values = {name: float(value) for name, value in self.last_metrics.items()}
        self._write({"step": self.steps, "updates": self.updates, **values}, values)
        score = np.mean(self.scores) if self.scores else float("nan")
        log.info("step %d, update %d, score %.2f", self.steps, self.updates, score)

    def _write(self, line: dict[str, Any], scalars: dict[str, float]) -> None:
        assert self.logs is not None
        self.logs.write(line, scalars, self.steps)

    def keep(self) -> None:
        """Save the agent of this moment under `agents/`."""
        config = self.config
        checkpoint.save(
            self.run / "agents" / str(self.steps), self.learner.model,
            name=f"{config.preset}-seed{config.seed}-{self.steps}",
            environment={"id": config.environment, "size": config.size, "repeat": config.repeat},
            training={
                "steps": self.steps, "updates": self.updates, "seed": config.seed,
                "preset": config.preset,
                "score": float(np.mean(self.scores)) if self.scores else None,
                "configuration": dataclasses.asdict(self.learning),
            },
        )  # fmt: skip

    def save(self) -> None:
        """Write `latest`: if this is killed half-way, the one before it is still there."""
        index = self.replay.save()
        assert self.logs is not None
        counters = {
            "steps": self.steps, "updates": self.updates, "credit": self.credit,
            "scores": list(self.scores), "sums": self.sums.tolist(),
            "lengths": self.lengths.tolist(),
            "last_metrics": {name: float(value) for name, value in self.last_metrics.items()},
            "rng": self.rng.bit_generator.state,
            "metrics_bytes": self.logs.position(), "replay": index,
            "environments": self.envs.state(),
        }  # fmt: skip
        arrays = {name: np.asarray(a) for name, a in named(self._arrays()).items()}
        store.write(self.run / "latest", arrays, {"counters": counters})
        self.replay.commit(index)

    def _restore(self) -> None:
        arrays, manifest = store.read(self.run / "latest")
        expected = named(self._arrays())
        store.match(
            arrays, {name: leaf.shape for name, leaf in expected.items()},
            what=f"{self.run / 'latest'} does not fit {self.run / 'config.json'}",
        )  # fmt: skip
        restored = with_named(self._arrays(), arrays)
        self.learner, self.carry = restored["learner"], restored["carry"]
        counters = manifest["counters"]
        self.steps, self.updates = counters["steps"], counters["updates"]
        self.credit = counters["credit"]
        self.last_metrics = counters["last_metrics"]
        self.scores.extend(counters["scores"])
        self.sums, self.lengths = np.array(counters["sums"]), np.array(counters["lengths"])
        self.rng.bit_generator.state = counters["rng"]
        self.replay = Replay.load(self.run / "replay", counters["replay"])
        self.step = self.envs.restore(counters["environments"])
        self.logs = Logs(self.run, length=counters["metrics_bytes"], step=self.steps)

    def _arrays(self) -> dict[str, Any]:
        """All arrays that a run must keep, besides the replay."""
        return {"learner": self.learner, "carry": self.carry}


_update = jax.jit(learner.update, static_argnames="config", donate_argnums=0)


def _mesh(batch: int) -> NamedSharding:
    """The batch spread over all local devices.

    **Errors:** `ValueError` if they cannot share it evenly.
    """
    devices = jax.local_devices()
    if batch % len(devices):
        raise ValueError(
            f"`batch_size` must be a multiple of the number of devices; got {batch} and "
            f"{len(devices)}. Pass another --learning.batch-size."
        )
    return NamedSharding(Mesh(np.array(devices), ("batch",)), PartitionSpec("batch"))


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a question that the loop asks; the second one interrupts."""
    asked = False

    def handle(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        log.warning("Stopping after this decision and saving; Ctrl-C again to stop at once.")

    try:
        before = signal.signal(signal.SIGINT, handle)
    except ValueError:  # not in the main thread: its interrupts are not ours to take
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
