"""Train a DreamerV3 agent: act, remember, learn, save. A run can be stopped and resumed at any
moment.

A run is a folder:

    config.json     the settings, versions, git revision
    metrics.jsonl   one line per log step and one per finished episode
    tensorboard/    the same as events
    agents/STEPS/   the agent at the asked budgets
    saves/          all that is needed to continue exactly; `saves/latest` names it
    replay/         the experience, which a save points into
    log.txt         what the terminal showed
    lock.json       who trains it, while it is trained

A run that is stopped and resumed gives the same weights, bit for bit on a CPU, as a run that was
never stopped. Random keys are functions of the seed and of counters, and environments are restored
by replaying the actions of their unfinished episode. If an environment then shows another
observation, a new episode begins.

An update runs while the environments play. Its results are read at the next decision, which needs
its weights in any case, so no batch waits for the previous one.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from thinkslow import memory
from thinkslow.dreamer.config import ModelConfig, TrainConfig
from thinkslow.dreamer.training import experience, state
from thinkslow.dreamer.training import run as runs
from thinkslow.dreamer.training.episodes import Progress
from thinkslow.dreamer.training.logs import Logs, log
from thinkslow.dreamer.training.programs import Pending, act, update
from thinkslow.dreamer.training.run import RunConfig
from thinkslow.dreamer.training.state import RunState
from thinkslow.dreamer.training.stopping import stoppable
from thinkslow.storage import atomic, lock, saves

HURRY_S = 10.0
"""Seconds that a stopping run waits for environments that do not answer."""


class Diverged(RuntimeError):
    """A loss was non-finite. The state before it is saved."""


class Trainer(RunState):
    """One run in memory. Make it with `Trainer.begin` or `Trainer.resume`, then call `train`."""

    def __init__(self, run: Path, config: RunConfig, model: ModelConfig, learning: TrainConfig):
        super().__init__(run, config, model, learning)
        self.pending: list[Pending] = []

    @classmethod
    def begin(
        cls, run: Path, config: RunConfig, model: ModelConfig, learning: TrainConfig
    ) -> "Trainer":
        """Begin a new run.

        **Errors:** `FileExistsError` if the folder holds a run; `lock.Locked` if another process
        writes in it; those of `check_agent`, and of the environment.
        """
        runs.refuse_used(run)
        trainer = cls(run, config, model, learning)
        try:
            trainer.check_agent()
            trainer.lock = lock.claim(run)
            runs.refuse_used(run)  # by a run that began in the meantime
            trainer.step = trainer.envs.reset()  # before: a run that never began is no run
            atomic.write_text(run / runs.CONFIG, trainer.description)
            trainer.logs = Logs(run)
        except BaseException:
            trainer.close()
            raise
        return trainer

    @classmethod
    def resume(cls, run: Path, changes: Mapping[str, Any] | None = None) -> "Trainer":
        """Load the run from its last save.

        Args:
            run: its folder.
            changes: other values for settings in `run.FREE`.

        **Errors:** `store.Missing` if the folder holds no run, or its saves are gone;
        `store.Damaged`; `lock.Locked` if another process writes in it; `ValueError` if the
        environment shows or takes something else now.
        """
        described = runs.read(run)
        runs.check_saved(run)
        held = lock.claim(run)
        try:
            config = dataclasses.replace(described.run, **(changes or {}))
            trainer = cls(run, config, described.model, described.learning)
        except BaseException:
            held.release()
            raise
        trainer.lock = held
        try:
            runs.check_spaces(described, trainer.envs.observation_space, trainer.envs.action_spaces)
            save = saves.latest(run / "saves")
            if save is not None:
                trainer.continue_from(save)
                if trainer._spent and not trainer.agent_folder.exists():
                    trainer.keep()  # it was killed between its first save and its first agent
            else:  # killed before its first save, so it begins again
                trainer.replay.remove_leftovers()
                trainer.step = trainer.envs.reset()
                trainer.logs = Logs(run)
        except BaseException:
            trainer.close()
            raise
        return trainer

    def train(
        self,
        *,
        steps: int | None = None,
        minutes: float | None = None,
        show: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """Train until the run has made `steps` decisions, or for `minutes`, and save at the end.

        Minutes count from the first decision, after compiling. Ctrl-C or a signal of
        `thinkslow.ending` ends the run at the next decision, with a save; a second one ends it at
        once.

        **Errors:** `Diverged` at a non-finite loss, after the state before it was saved;
        `lock.Lost` if the folder was deleted, after everything was saved again; `KeyboardInterrupt`
        or `SystemExit` after a signal.
        """
        if steps is not None and self.steps >= steps:
            log.info("%s has %d of %d steps: pass more.", self.run, self.steps, steps)
            if not self.agent_folder.exists():  # it was killed after its last save
                self.keep()
            return
        self._compile(steps)
        begun = saved = looked = time.monotonic()
        # A simulator that hangs must not keep a run from saving.
        with stoppable(lambda: self.envs.hurry(HURRY_S)) as stop:
            while (steps is None or self.steps < steps) and stop.signal is None:
                now = time.monotonic()
                if minutes is not None and now - begun >= 60 * minutes:
                    break
                if now - looked > state.LOOK_EVERY:
                    self.check_folder()
                    looked = now
                if now - saved > self.config.save_every:
                    self.save()
                    saved = now
                self._advance()
                show(Progress(self.steps, self.updates, self.episodes.mean))
            self.save()
            self.keep()
        stop.raise_if_asked()

    @property
    def ready(self) -> bool:
        """Whether the replay holds enough steps to learn from."""
        # A window is one step longer than a sequence: its first row is the starting state.
        return len(self.replay) // self.config.environments > 2 * self.learning.batch_length

    @property
    def first_update(self) -> int:
        """Number of decisions after which the first update of a run comes.

        The replay must be `ready`, and then hold the experience of one update.
        """
        credit, rounds = 0.0, 2 * self.learning.batch_length
        while credit < 1 and rounds < 10**6:  # as in `_advance`, rounding included
            credit, rounds = credit + self._updates_per_round, rounds + 1
        return self.config.environments * rounds

    @property
    def _updates_per_round(self) -> float:
        """Number of updates for one decision in every environment."""
        return (
            self.config.environments
            * self.learning.replay_ratio
            / (self.learning.batch_size * self.learning.batch_length)
        )

    @property
    def _spent(self) -> bool:
        """Whether the last decisions reached one of the budgets."""
        before = self.steps - self.config.environments
        return any(before < budget <= self.steps for budget in self.config.budgets)

    def _compile(self, steps: int | None) -> None:
        """Compile the decision, and the update if one comes within `steps`."""
        begun = time.monotonic()
        decision = (self.learner.model, self.carry, self.step.observation, self.step.is_first)
        last = None if steps is None else steps + self.config.environments
        learns = bool(self.updates) or last is None or last > self.first_update
        what = "decision and the update" if learns else "decision"
        log.info("Compiling the %s, which may take a minute or two.", what)
        act.lower(*decision, self.act_key, self.steps).compile()
        if learns:
            lead = (self.learning.batch_size, self.learning.batch_length + 1)
            rows = {
                name: jax.ShapeDtypeStruct((*lead, *shape), kind, sharding=self.spread)
                for name, (shape, kind) in self.replay.fields.items()
            }
            update.lower(
                self.learner, rows, self.update_key, self.updates, config=self.learning
            ).compile()
        memory.give_back()
        log.info("Compiled the %s in %.0f s.", what, time.monotonic() - begun)

    def _advance(self) -> None:
        """One decision in every environment, and the updates that are due after it."""
        step = self.step
        carry, action, latents = act(
            self.learner.model,
            self.carry,
            step.observation,
            step.is_first,
            self.act_key,
            self.steps,
        )
        # Waits for the weights of the last update, and therefore for all updates.
        action = np.asarray(action)
        self._finish_updates()
        self.carry = carry
        clean, records = self.episodes.see(step, self.steps)
        latents = {name: np.asarray(value) for name, value in latents.items()}
        self.replay.add(experience.row(clean, action, latents))
        for record in records:
            whole = () if record["crashed"] else ("score", "length")
            self._write({"episode": record}, {name: record[name] for name in whole})
        before = self.steps
        self.steps += self.config.environments
        self.credit = self.credit + self._updates_per_round if self.ready else 0.0
        while self.credit >= 1:
            self._begin_update()
            self.credit -= 1
        self.step = self.envs.step(self.split(action))
        if self.steps // self.config.log_every > before // self.config.log_every:
            self._finish_updates()
            self._write_metrics()
        if self._spent:
            self.keep()

    def _begin_update(self) -> None:
        rows, indices = self.replay.sample(
            self.rng, self.learning.batch_size, self.learning.batch_length + 1
        )
        self.learner, finite, latents, metrics = update(
            self.learner,
            jax.device_put(rows, self.spread),
            self.update_key,
            self.updates,
            config=self.learning,
        )
        self.updates += 1
        for array in jax.tree.leaves((finite, latents, metrics)):
            array.copy_to_host_async()
        self.pending.append(Pending(finite, latents, metrics, indices.part(1)))

    def _finish_updates(self) -> None:
        """Collect the results of the updates that were started.

        Refreshed latents go into the replay, so that later sequences start from the present
        model.

        **Errors:** `Diverged`.
        """
        pending, self.pending = self.pending, []
        for index, done in enumerate(pending):
            if not bool(done.finite):
                self.updates -= len(pending) - index
                bad = [name for name, value in done.metrics.items() if not np.isfinite(value)]
                self.save()
                raise Diverged(
                    f"Update {self.updates + 1} gave values that are non-finite "
                    f"({', '.join(bad) or 'weights'}), though everything that the environment "
                    f"gave was; the state before it is in {self.run / 'saves'}. Begin another "
                    "run with a lower `learning_rate=X`."
                )
            self.last_metrics = {name: float(value) for name, value in done.metrics.items()}
            latents = {name: np.asarray(value) for name, value in done.latents.items()}
            self.replay.write(done.indices, latents)

    def _write_metrics(self) -> None:
        if not self.last_metrics:
            return
        values = self.last_metrics
        self._write({"step": self.steps, "updates": self.updates, **values}, values)
        score = self.episodes.mean
        text = "no episode yet" if score is None else f"score {score:.4g}"
        log.info("step %d, update %d, %s", self.steps, self.updates, text)

    def _write(self, line: dict[str, Any], scalars: Mapping[str, float]) -> None:
        assert self.logs is not None
        self.logs.write(line, scalars, self.steps)

    def keep(self) -> None:
        """Store the present agent under `agents/`, after a first save.

        **Errors:** those of `save`.
        """
        self._finish_updates()
        self.check_folder()
        if saves.latest(self.run / "saves") is None:
            self.write_save()
        self.write_agent()

    def save(self) -> None:
        """Write a save. If the process is killed meanwhile, the previous save stays valid.

        **Errors:** `Diverged`; `lock.Lost`, as `train`.
        """
        self._finish_updates()
        self.check_folder()
        self.write_save()
        memory.give_back()  # free pieces between those that stay grew to 2% in two hours
