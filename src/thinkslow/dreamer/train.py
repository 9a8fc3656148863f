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
import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tensorboardX import SummaryWriter

from thinkslow import store
from thinkslow.dreamer import checkpoint, learner
from thinkslow.dreamer.config import ModelConfig, TrainConfig
from thinkslow.dreamer.losses import Batch
from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.replay import Indices, Replay
from thinkslow.envs import Step, VectorEnv
from thinkslow.nets import named, with_named
from thinkslow.worldmodel import State

log = logging.getLogger("thinkslow.train")

FLAGS = ("is_first", "is_last", "is_terminal")


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
        self.run, self.config, self.learning = run, config, learning
        least = config.environments * (2 * learning.batch_length + 2)
        if learning.replay_capacity < least:
            raise ValueError(
                f"`replay_capacity` must hold two sequences of each environment, {least} steps; "
                f"got {learning.replay_capacity}."
            )
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
            self._fields(network), streams=config.environments, path=run / "replay",
            capacity=learning.replay_capacity, mutable=("deter", "stoch"),
        )  # fmt: skip
        self.rng = np.random.default_rng(config.seed)
        self.steps = self.updates = 0
        self.credit = 0.0
        self.scores: deque[float] = deque(maxlen=20)
        self.sums = np.zeros(config.environments)
        self.lengths = np.zeros(config.environments, int)
        self.last_metrics: Mapping[str, Any] = {}
        self.carry = _start(network, config.environments)
        self.devices = _mesh(learning.batch_size)

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
            "learning": dataclasses.asdict(learning), **checkpoint.provenance(),
        }  # fmt: skip
        store.atomic_text(run / "config.json", json.dumps(description, indent=1))
        trainer.step = trainer.envs.reset()
        trainer._log_files(0)
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
        tuples = {"budgets": tuple(described["run"]["budgets"])}
        config = RunConfig(**described["run"] | tuples)
        percentiles = {"return_percentiles": tuple(described["learning"]["return_percentiles"])}
        learning = TrainConfig(**described["learning"] | percentiles)
        trainer = cls(run, config, ModelConfig.from_json(described["model"]), learning)
        store.recover(run / "latest")
        if (run / "latest").exists():
            trainer._restore()
        else:  # killed before its first save: begin again
            trainer.step = trainer.envs.reset()
            trainer._log_files(0)
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
        if hasattr(self, "events"):
            self.events.close()
            self.metrics.close()
            log.removeHandler(self.log_file)
            self.log_file.close()

    def _advance(self) -> None:
        """One decision in every environment, and the updates that it pays for."""
        keys = jr.split(jr.fold_in(self.act_key, self.steps), self.config.environments)
        step, previous = self.step, self.carry
        observation, is_first = jax.tree.map(jnp.asarray, (step.observation, step.is_first))
        self.carry, actions = _act(self.learner.model, previous, observation, is_first, keys)
        state = self.carry[0]
        self.replay.add({
            **step.observation, "reward": step.reward, "action": np.asarray(self.carry[1]),
            **{flag: getattr(step, flag) for flag in FLAGS},
            "deter": np.asarray(state.memory, np.float32), "stoch": _indices(state.latent),
        })  # fmt: skip
        self._count_episodes(step)
        self.step = self.envs.step(np.asarray(actions["action"]))
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
        batch = jax.device_put(self._batch(rows), self.devices)
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
        self._write_back(indices, update.states)

    def _batch(self, rows: Mapping[str, Any]) -> Batch:
        config = self.learner.model.config
        rows = {name: jnp.asarray(value) for name, value in rows.items()}
        start = State(rows["deter"][:, 0], jax.nn.one_hot(rows["stoch"][:, 0], config.classes))
        rest = {name: value[:, 1:] for name, value in rows.items()}
        return Batch(
            observation={name: rest[name] for name, _ in self.learner.model.enc.spaces},
            previous_action=rows["action"][:, :-1],
            reward=rest["reward"],
            is_first=rest["is_first"],
            is_last=rest["is_last"],
            is_terminal=rest["is_terminal"],
            start=start,
        )

    def _write_back(self, indices: Indices, states: State) -> None:
        """Keep the refreshed latents, so that later sequences start from the present model."""
        latents = {"deter": np.asarray(states.memory), "stoch": _indices(states.latent)}
        self.replay.write(indices.part(1), latents)

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
        self.metrics.write(json.dumps(line) + "\n")
        self.metrics.flush()
        for name, value in scalars.items():
            self.events.add_scalar(name, value, self.steps)

    def _log_files(self, length: int) -> None:
        """Open the logs, cut back to what was there at the last save."""
        path = self.run / "metrics.jsonl"
        path.touch()
        self.metrics = path.open("r+")
        self.metrics.truncate(length)
        self.metrics.seek(length)
        self.log_file = logging.FileHandler(self.run / "log.txt")
        self.log_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.setLevel(logging.INFO)
        log.addHandler(self.log_file)
        log.info("%s at step %d", "resumed" if length else "begun", self.steps)
        purge = self.steps if length else None
        self.events = SummaryWriter(str(self.run / "tensorboard"), purge_step=purge)

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
        self.metrics.flush()
        counters = {
            "steps": self.steps, "updates": self.updates, "credit": self.credit,
            "scores": list(self.scores), "sums": self.sums.tolist(),
            "lengths": self.lengths.tolist(),
            "last_metrics": {name: float(value) for name, value in self.last_metrics.items()},
            "rng": self.rng.bit_generator.state,
            "metrics_bytes": self.metrics.tell(), "replay": index,
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
        self._log_files(counters["metrics_bytes"])

    def _arrays(self) -> dict[str, Any]:
        """All arrays that a run must keep, besides the replay."""
        return {"learner": self.learner, "carry": self.carry}

    def _fields(self, model: Dreamer) -> dict[str, tuple[tuple[int, ...], Any]]:
        config = model.config
        action = jax.eval_shape(model.policy, jax.eval_shape(model.initial), jr.key(0))
        return {
            **{name: (space.shape, space.dtype) for name, space in model.enc.spaces},
            "action": (action.shape, np.float32), "reward": ((), np.float32),
            **{flag: ((), np.bool_) for flag in FLAGS},
            "deter": ((config.deter,), np.float32),
            "stoch": ((config.stoch,), _index_dtype(config.classes)),
        }  # fmt: skip


_update = jax.jit(learner.update, static_argnames="config", donate_argnums=0)


@jax.jit
def _act(
    model: Dreamer, carry: tuple[State, jax.Array], observation: dict[str, jax.Array],
    is_first: jax.Array, keys: jax.Array,
) -> tuple[tuple[State, jax.Array], dict[str, jax.Array]]:  # fmt: skip
    """One decision for a batch: the state and the action to carry, the action to play."""

    def one(carry: tuple, observation: dict, is_first: jax.Array, key: jax.Array):
        latent_key, action_key = jr.split(key)
        state, action = carry
        memory, _ = model.predict(state, action, is_first)
        state = State(memory, model.infer(memory, observation).sample(key=latent_key))
        return state, model.policy(state, action_key)

    state, action = jax.vmap(one)(carry, observation, is_first, keys)
    return (state, action), model.split(action)


def _start(model: Dreamer, count: int) -> tuple[State, jax.Array]:
    state = model.initial()
    action = jax.eval_shape(model.policy, state, jr.key(0))
    carry = (state, jnp.zeros(action.shape, action.dtype))
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), carry)


def _indices(latent: jax.Array) -> np.ndarray:
    """One-hot latents as the integers that the replay keeps."""
    return np.argmax(np.asarray(latent), -1).astype(_index_dtype(latent.shape[-1]))


def _index_dtype(classes: int) -> type[np.unsignedinteger]:
    return np.uint8 if classes <= 256 else np.uint16


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
