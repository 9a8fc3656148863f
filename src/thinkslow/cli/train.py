"""`thinkslow train`: train an agent."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from thinkslow.cli.common import log_to_console
from thinkslow.cli.common import parse as parse_options
from thinkslow.cli.exports import Exporting
from thinkslow.cli.playing import Playing
from thinkslow.cli.progress import shown
from thinkslow.cli.trackers import Findings
from thinkslow.cli.usage import Usage
from thinkslow.dreamer.config import TrainConfig, train_preset
from thinkslow.plural import plural
from thinkslow.settings import setting

if TYPE_CHECKING:
    from thinkslow.dreamer.training.run import RunConfig
    from thinkslow.dreamer.training.trainer import Trainer

DESCRIPTION = """Train a DreamerV3 agent.

The run folder holds the agent at each of --budgets (agents/STEPS), metrics.jsonl, TensorBoard
events, and saves/, from which --resume continues exactly. Ctrl-C, or SIGTERM from a batch system,
stops after the current decision and saves. A kill loses at most --save-every seconds.

examples:
  thinkslow train thinkslow/CollectGoodObjects-v0 --minutes 30 --run runs/first
  thinkslow train --resume --run runs/first --minutes 30
  thinkslow train ALE/Pong-v5 --preset size12m --repeat 4 --steps 1e6 --run pong"""

log = logging.getLogger("thinkslow")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Exporting, Playing):
    """Options of `thinkslow train`."""

    GROUP: ClassVar = "training"

    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[ENV]")] = ""
    """The environment: a Gymnasium id, module:id or module:function. Leave it out with
    --resume."""
    run: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/latest")
    """Write the run to this folder."""
    preset: str = "tiny"
    """Train an agent of this size: tiny or tiny-gaussian (for CPUs), size1m, size12m, size25m,
    size50m, size100m, size200m, size400m."""
    steps: int | None = setting(None, above=0)
    """Stop after N decisions in total, over all environments."""
    minutes: Annotated[float | None, tyro.conf.arg(metavar="MINUTES")] = setting(None, above=0)
    """Stop after this time. It counts from the first decision, so compiling is not included. With
    --steps, the first limit that is reached applies."""
    seed: int = 0
    """Take weights, environment seeds and random numbers from this seed."""
    envs: int = 4
    """Play N environments in parallel, one process each."""
    size: Annotated[int, tyro.conf.arg(metavar="PIXELS")] = 64
    """Resize images to squares of this side."""
    repeat: int = 1
    """Play each action N times."""
    budgets: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = ()
    """Also keep the agent after these numbers of decisions. The last agent is always kept."""
    save_every: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = setting(300.0, above=0)
    """Save the run at this interval."""
    resume: bool = False
    """Continue the run in --run with its settings. Time limits, --budgets and --save-every may
    be others."""
    learning: Annotated[TrainConfig, tyro.conf.arg(name="learning")] = dataclasses.field(
        default_factory=lambda: train_preset("tiny")
    )
    """How the agent learns. The defaults come from the preset."""

    def check(self) -> None:
        """**Errors:** `Usage` without a duration or an environment."""
        super().check()
        if self.steps is None and self.minutes is None:
            raise Usage("Say how long to train: pass --steps N or --minutes M.")
        if not self.resume and not self.env:
            raise Usage("Say what to play: thinkslow train ENV, or --resume with --run RUN.")


def parse(arguments: Sequence[str]) -> Options:
    """**Errors:** `Usage` for flags that contradict each other."""
    first, _ = tyro.cli(_First, args=list(arguments), return_unknown_args=True, add_help=False)
    if first.resume and not {"-h", "--help"}.intersection(arguments):
        default = _of_run(first.run)
    else:
        try:
            default = Options(preset=first.preset, learning=train_preset(first.preset))
        except ValueError as error:
            raise Usage(str(error)) from error
    return parse_options(Options, "train", DESCRIPTION, arguments, default)


def write_tables(options: Options) -> None:
    """Write what a run has logged, `updates` and `episodes`, in the requested formats."""
    from thinkslow.evaluation import tables

    if options.csv or options.parquet:
        options.write(Findings(options.run, tables.training(options.run), {}))


@dataclasses.dataclass(frozen=True)
class _First:
    """The flags that set the defaults of the others."""

    preset: str = Options.preset
    resume: bool = False
    run: Path = Options.run


def _of_run(folder: Path) -> Options:
    """The options with which the run in a folder was begun, except how its environment is made;
    the usual ones if the folder holds no run, as `run` will tell.
    """
    from thinkslow.dreamer.training import run as runs
    from thinkslow.storage import store

    try:
        there = runs.read(folder)
    except (store.Missing, store.Damaged):
        return Options()
    same = ("preset", "seed", "size", "repeat", "budgets", "save_every", "step_limit")
    return Options(
        env=there.run.environment,
        envs=there.run.environments,
        reset_limit=there.run.reset_limit,
        learning=there.learning,
        **{name: getattr(there.run, name) for name in same},
    )


def _config(options: Options, making: Mapping[str, Any]) -> "RunConfig":
    """**Errors:** `Usage` for impossible values."""
    from thinkslow.dreamer.training.run import RunConfig

    try:
        return RunConfig(
            options.env,
            preset=options.preset,
            seed=options.seed,
            environments=options.envs,
            size=options.size,
            repeat=options.repeat,
            budgets=options.budgets,
            save_every=options.save_every,
            making=making,
            step_limit=options.step_limit,
            reset_limit=options.reset_limit,
        )
    except ValueError as error:
        raise Usage(str(error)) from error


BUILDING = "Starting the environments and building the agent."
"""Said before what takes seconds, and a minute on a loaded machine."""


def _trainer(options: Options) -> "Trainer":
    """The run that the options ask for, begun or continued.

    **Errors:** `Usage` for --resume with settings that are not the run's; those of `Trainer`.
    """
    from thinkslow.dreamer.config import model_preset
    from thinkslow.dreamer.training import run as runs
    from thinkslow.dreamer.training.trainer import Trainer
    from thinkslow.storage import store

    free = {name: getattr(options, name) for name in runs.FREE}
    if options.resume:
        there = runs.read(options.run)
        config = _config(options, options.making() or there.run.making)
        if other := runs.differences(options.run, config, there.model, options.learning):
            raise Usage(
                f"--resume takes its settings from the run: {'; '.join(other.values())}. Leave "
                "them out, or begin another run."
            )
        return Trainer.resume(options.run, free)
    config = _config(options, options.making())
    settings = (config, model_preset(options.preset), options.learning)
    try:
        other = runs.differences(options.run, *settings)
    except (store.Missing, store.Damaged):  # then `refuse_used` tells what is there
        other = None
    if other == {}:
        log.info("%s holds this run: continuing. Pass another --run for a new one.", options.run)
        return Trainer.resume(options.run, free)
    environment = {"id": options.env, "size": options.size, "repeat": options.repeat}
    with options.cause_first(environment | options.making()):
        runs.refuse_used(options.run, (other or {}).values())
    log.info(BUILDING)
    return Trainer.begin(options.run, *settings)


def run(options: Options) -> dict[str, Any]:
    """Train, and report the folder of the agent."""
    log_to_console()
    options.check_exports()
    if late := [one for one in options.budgets if options.steps and one > options.steps]:
        log.warning(
            "--budgets %s changes nothing in this call, which ends at --steps %d.",
            " ".join(map(str, late)),
            options.steps,
        )
    trainer = _trainer(options)
    if trainer.logs is not None:
        settings = dataclasses.asdict(trainer.config) | dataclasses.asdict(trainer.learning)
        trainer.logs.writers.extend(options.trackers(options.run, settings))
    try:
        with shown(steps=options.steps, minutes=options.minutes) as show:
            trainer.train(steps=options.steps, minutes=options.minutes, show=show)
    finally:
        trainer.close()
        write_tables(options)
    agent = options.run / "agents" / str(trainer.steps)
    made = f"{plural(trainer.steps, 'decision')}, {plural(trainer.updates, 'update')}"
    log.info("The agent is in %s: %s", agent, made)
    if not trainer.updates:
        log.warning(
            "It is untrained: the first update comes after %d decisions. Train longer.",
            trainer.first_update,
        )
    if failed := trainer.episodes.failed:
        log.warning(
            "%d of %s in this call ended because the environment failed, the last by %s. They are "
            "learnt from and have no score. Fix the environment.",
            failed,
            plural(trainer.episodes.ended, "episode"),
            trainer.episodes.last_failure,
        )
    return {
        "run": str(options.run),
        "agent": str(agent),
        "steps": trainer.steps,
        "updates": trainer.updates,
        "score": trainer.episodes.mean,
    }
