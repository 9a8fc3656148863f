"""The state of a training run: in memory, in its folder, and from one to the other."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.random as jr
import numpy as np

from thinkslow import memory
from thinkslow.agent.agent import Agent
from thinkslow.dreamer.config import ModelConfig, TrainConfig
from thinkslow.dreamer.model import Dreamer
from thinkslow.dreamer.training import experience, learner
from thinkslow.dreamer.training import run as runs
from thinkslow.dreamer.training.episodes import Episodes
from thinkslow.dreamer.training.logs import Logs, log, null_nonfinite
from thinkslow.dreamer.training.programs import shardings
from thinkslow.dreamer.training.replay import Replay
from thinkslow.dreamer.training.run import RunConfig
from thinkslow.envs import Step, VectorEnv
from thinkslow.saved import folder as checkpoint
from thinkslow.storage import atomic, checks, lock, saves, store
from thinkslow.weights import named, with_named

PLAYED = "environments"
"""The name of the environments' state in a save; it is JSON as bytes."""
LOOK_EVERY = 1.0
"""Seconds between two checks whether the folder of the run still exists."""


FULL = 0.8
"""Share of the memory above which a replay is said to be too large."""


class RunState:
    """Everything that a run consists of: agent, replay, environments, counters, logs.

    Methods write to the folder and read from it. They do not check whether an update is still
    running; `Trainer` does.
    """

    step: Step
    """The present step of the environments."""

    def __init__(self, run: Path, config: RunConfig, model: ModelConfig, learning: TrainConfig):
        least = config.environments * (2 * learning.batch_length + 2)
        if learning.replay_capacity < least:
            raise ValueError(
                f"`replay_capacity` must be {least} or more, two sequences of each environment; "
                "got "
                f"{learning.replay_capacity}."
            )
        self.run, self.config, self.learning = run, config, learning
        self.spread, self.everywhere = shardings(learning.batch_size)
        self.envs = VectorEnv(
            config.environment,
            config.environments,
            seed=config.seed,
            size=config.size,
            repeat=config.repeat,
            step_limit_s=config.step_limit,
            reset_limit_s=config.reset_limit,
            **config.making,
        )
        self.description = runs.describe(
            config, model, learning, self.envs.observation_space, self.envs.action_spaces
        )
        key = jr.key(config.seed)
        weights_key, self.act_key, self.update_key = jr.split(key, 3)
        network = Dreamer(
            self.envs.observation_space, self.envs.action_spaces, model, key=weights_key
        )
        self.split, self.classes = network.split, model.classes
        self.learner, self.carry = jax.device_put(
            (learner.start(network, learning), Agent(network).start(config.environments)),
            self.everywhere,
        )
        self.replay = Replay(
            experience.fields(network),
            streams=config.environments,
            path=run / "replay",
            capacity=learning.replay_capacity,
            mutable=experience.LATENTS,
        )
        most = memory.allowed()
        if most is not None and self.replay.nbytes > FULL * most:
            log.warning(
                "The replay takes %.1f GiB when it is full (%s time steps), and this process may "
                "use %.1f GiB: the system may kill it. Lower `replay_capacity`.",
                self.replay.nbytes / 2**30,
                f"{learning.replay_capacity:,}",
                most / 2**30,
            )
        self.rng = np.random.default_rng(config.seed)
        self.steps = self.updates = 0
        self.credit = 0.0
        self.episodes = Episodes(config.environments)
        self.made_by = [runs.made_by()]
        self.last_metrics: dict[str, float] = {}
        self.logs: Logs | None = None
        self.lock: lock.Lock | None = None

    def close(self) -> None:
        """End the environments' processes, close the logs, and release the folder."""
        self.envs.close()
        if self.logs:
            self.logs.close()
        if self.lock:
            self.lock.release()

    @property
    def agent_folder(self) -> Path:
        """The folder of the present agent."""
        return self.run / "agents" / str(self.steps)

    def write_agent(self) -> None:
        """Store the present agent under `agents/`."""
        checkpoint.save(self.agent_folder, self.learner.model, **self._about())

    def check_agent(self) -> None:
        """**Errors:** `ValueError` for an agent that could not be read again, before it trains."""
        checkpoint.manifest_of(self.learner.model, **self._about())

    def _about(self) -> dict[str, Any]:
        """What `checkpoint.save` stores of the present agent beside its weights."""
        config = self.config
        return {
            "name": f"{config.preset}-seed{config.seed}-{self.steps}",
            "environment": {
                "id": config.environment,
                "size": config.size,
                "repeat": config.repeat,
                **config.making,
            },
            "training": {
                "steps": self.steps,
                "updates": self.updates,
                "seed": config.seed,
                "preset": config.preset,
                "score": self.episodes.mean,
                "returns": self.learner.returns.to_json(),
                "configuration": dataclasses.asdict(self.learning),
                "made_by": self.made_by,
            },
        }

    def write_save(self) -> None:
        """Write a save. If the process is killed meanwhile, the previous save stays valid."""
        assert self.logs is not None
        if gone := self.replay.missing():
            log.warning("%s was deleted: writing the whole replay again.", gone)
            self.replay.forget_files()
        index = self.replay.save()
        counters = {
            "steps": self.steps,
            "updates": self.updates,
            "credit": self.credit,
            "scores": list(self.episodes.recent),
            "last_metrics": null_nonfinite(self.last_metrics)[0],
            "rng": self.rng.bit_generator.state,
            "metrics_bytes": self.logs.position(),
            "replay": index,
            "made_by": self.made_by,
        }
        arrays = {name: np.asarray(array) for name, array in named(self._learnt()).items()}
        arrays |= {f"episodes/{name}": array for name, array in self.episodes.arrays().items()}
        # The actions of unfinished episodes may have megabytes, which is too much for a manifest.
        played = json.dumps(self.envs.state(), allow_nan=False).encode()
        arrays[PLAYED] = np.frombuffer(played, np.uint8)
        saves.write(self.run / "saves", arrays, {"counters": counters})
        self.replay.commit(index)

    def continue_from(self, save: Path) -> None:
        """Continue from a save."""
        arrays, manifest = store.read(save)
        played = json.loads(arrays.pop(PLAYED, np.frombuffer(b"null", np.uint8)).tobytes())
        expected = {name: leaf.shape for name, leaf in named(self._learnt()).items()}
        expected |= {f"episodes/{name}": x.shape for name, x in self.episodes.arrays().items()}
        checks.match(arrays, expected, what=f"{save} does not fit {self.run / runs.CONFIG}")
        restored = with_named(self._learnt(), arrays)
        self.learner, self.carry = jax.device_put(
            (restored["learner"], restored["carry"]), self.everywhere
        )
        counters = manifest["counters"]
        self.steps, self.updates = counters["steps"], counters["updates"]
        self.credit = counters["credit"]
        self.last_metrics = {
            name: float("nan") if value is None else value
            for name, value in counters["last_metrics"].items()
        }
        self.episodes.recent.extend(counters["scores"])
        self.episodes.restore({name: arrays[f"episodes/{name}"] for name in self.episodes.arrays()})
        self.rng.bit_generator.state = counters["rng"]
        self.replay = Replay.load(self.run / "replay", counters["replay"])
        self.replay.remove_leftovers()
        self.logs = Logs(self.run, length=counters["metrics_bytes"], step=self.steps)
        self._compare(counters.get("made_by", []))
        self.step = self.envs.restore(played)

    def _compare(self, before: list[dict[str, Any]]) -> None:
        """Log and record a change of the code or the libraries since the last part of the run.

        A change is allowed: a long run may continue after a bug was fixed. But its results from
        here on may differ from those of a run that was never stopped.
        """
        now = self.made_by[-1]
        self.made_by = before if before[-1:] == [now] else [*before, now]
        if before and before[-1] != now:
            log.warning(
                "This run was trained by %s so far, and continues with %s. It may differ from a "
                "run that was never stopped; its agents record both.",
                runs.told_apart(before[-1], now),
                runs.told_apart(now, before[-1]),
            )

    def _learnt(self) -> dict[str, Any]:
        """The state of learning and acting, as one tree."""
        return {"learner": self.learner, "carry": self.carry}

    def check_folder(self) -> None:
        """Check that the run still holds its folder. A deleted folder is written again.

        **Errors:** `lock.Lost` if it does not hold the folder.
        """
        assert self.lock is not None
        try:
            self.lock.check()
        except lock.Lost as error:
            if error.deleted:
                self._rescue()
                raise lock.Lost(
                    f"{error} The run was saved there again at decision {self.steps:,}. Continue "
                    "with `thinkslow train --resume`, or delete the folder again.",
                    deleted=True,
                ) from None
            raise

    def _rescue(self) -> None:
        """Write the whole run into a folder that was deleted."""
        assert self.logs is not None
        time.sleep(LOOK_EVERY)  # until the deletion has finished
        log.warning("%s was deleted: saving it again, and stopping.", self.run)
        self.lock = lock.claim(self.run)
        text = self.logs.text()
        self.logs.close()
        atomic.write_text(self.run / runs.CONFIG, self.description)
        atomic.write_text(self.run / "metrics.jsonl", text)
        self.logs = Logs(self.run, length=len(text.encode()), step=self.steps)
        self.write_save()
        self.write_agent()
