"""`thinkslow evaluate`: does thinking help this agent?"""

import dataclasses
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from thinkslow.agent.gates import SCORES, Score
from thinkslow.agent.presets import ARMS, DEFAULT, Arm, overridden
from thinkslow.agent.thinking import Thinking, UpdateName
from thinkslow.cli.common import Opening, Usage, console, log_to
from thinkslow.cli.common import parse as parse_options
from thinkslow.objectives.lookahead import Imagery
from thinkslow.worldmodel import Draw, Readout

DESCRIPTION = f"""Play agents with and without thinking, under paired seeds.

Every arm plays the same environment seeds with the same random numbers, so that a difference
is the thinking's. Prints a table and writes summary.json, episodes.jsonl and report.html.

arms:
{chr(10).join(f"  {name:20} {one.description}" for name, one in ARMS.items())}

gates (--gate):
{chr(10).join(f"  {name:20} {what}" for name, what in SCORES.items())}

The options after --pool change every arm that refines: a study of one setting, or, with
--terms, an objective of your own.

example: thinkslow evaluate runs/first/agents/60000 --episodes 50 --arms none,evidence"""

OVERRIDES = (
    *(field.name for field in dataclasses.fields(Thinking) if field.name != "terms"),
    "gate", "share", "deadline_ms",
)  # fmt: skip
"""Options that change what the arms do: those of `Thinking` and of `Arm`, under the same names."""


WITHOUT_DECODER = "entropy-3"
"""Played in place of the default refinements that need a decoder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Opening):
    """Options of `thinkslow evaluate`."""

    agents: tyro.conf.Positional[tuple[Path, ...]]
    """Agent folders, or what other projects wrote: log folders, checkpoints."""
    env: str | None = None
    """Environment; by default the one that the agent was trained on."""
    repeat: int | None = None
    """Times that each action is repeated; by default as the agent was trained."""
    action: Literal["sample", "mode"] | None = None
    """How to take an action from the policy; by default as the agent's own project does when it
    evaluates."""
    episodes: int = 20
    """Episodes per arm."""
    seed: int = 0
    """Of the evaluation: environment seeds and noise."""
    arms: str = ",".join(DEFAULT)
    """Which arms, joined by commas; `none` is the baseline of every comparison."""
    out: Path = Path("out/evaluate")
    """Folder of the records and the page."""
    batch: int = 8
    """Environments played side by side, one process each."""
    max_decisions: int | None = None
    """Decisions after which an episode is cut, which is said."""
    pool: bool = False
    """The agents are training seeds of one recipe: speak of all of them together too."""
    gate: Score | None = None
    """Think only in doubt, by this score of the moment."""
    share: float | None = None
    """Share of the decisions that the gate should open for, a fifth unless told otherwise; its
    threshold is calibrated to it on other episodes."""
    deadline_ms: float | None = None
    """Milliseconds after which a decision of all environments side by side acts on its best belief
    so far, with --steps at most."""
    steps: int | None = None
    """Refinement steps per decision."""
    rollout: int | None = None
    """Imagined steps."""
    rollouts: int | None = None
    """Futures to average over."""
    samples: int | None = None
    """Latents to average the evidence over."""
    step_size: float | None = None
    """Factor of each step."""
    nats: float | None = None
    """KL that all steps of a decision together may move the belief."""
    update: UpdateName | None = None
    """How to step; `random` arms stay random."""
    terms: str | None = None
    """The objective: terms with weights, such as sig=1,evidence=0.5."""
    latent: Draw | None = None
    """How the objective takes a latent from a belief."""
    imagery: Imagery | None = None
    """How an imagined observation is taken from the decoder."""
    readout: Readout | None = None
    """How the state that acts is read from the belief."""
    candidates: int | None = None
    """Read so many samples and keep the one that reconstructs best."""
    accept: bool | None = None
    """Take a step only if the objective falls on fresh random numbers."""
    judges: int | None = None
    """Draws that judge a step."""
    tolerance: float | None = None
    """Stop after a step that lowers the objective by less than this share of it."""
    temperature: float | None = None
    """Of the noise of `langevin`."""
    memory: float | None = None
    """Refine the memory too, by at most this share of its length."""
    select: Literal["last", "best"] | None = None
    """Which iterate to return."""
    carry: bool | None = None
    """Whether the refined state is carried on."""
    beta: float | None = None
    """Weight of the KL in `evidence`; by default as the model was trained."""
    free_nats: float | None = None
    """Free nats of `evidence`; by default as the model was trained."""
    lag: int | None = None
    """Frames before the present that are encoded again before the belief is refined."""
    particles: int | None = None
    """Samples of the state that are carried, weighted by the evidence, each refined."""


def parse(arguments: Sequence[str]) -> Options:
    """**Errors:** `Usage` for impossible values."""
    options = parse_options(Options, "evaluate", DESCRIPTION, arguments)
    if not options.agents:
        raise Usage("Say which agent: thinkslow evaluate AGENT. `thinkslow train` makes one.")
    if options.episodes < 2:
        raise Usage(f"--episodes must be 2 or more, to have an interval; got {options.episodes}.")
    if not 0 <= options.seed < 2**31:
        raise Usage(f"--seed must be between 0 and {2**31 - 1}; got {options.seed}.")
    if options.repeat is not None and options.repeat < 1:
        raise Usage(f"--repeat must be 1 or more; got {options.repeat}.")
    if options.pool and len(options.agents) < 2:
        raise Usage("--pool needs two agents or more, each of another training seed.")
    if options.max_decisions is not None and options.max_decisions < 1:
        raise Usage(f"--max-decisions must be 1 or more; got {options.max_decisions}.")
    if options.batch < 1:
        raise Usage(f"--batch must be 1 or more; got {options.batch}.")
    chosen(options)
    return options


def chosen(options: Options) -> dict[str, Arm]:
    """The arms to play, `none` first, with what the flags override.

    **Errors:** `Usage` for an unknown arm or an impossible value.
    """
    names = [name.strip() for name in options.arms.split(",") if name.strip()]
    given = {name: getattr(options, name) for name in OVERRIDES}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if options.gate is not None:
        changes.setdefault("share", 0.2)
    out = {}
    try:
        if options.terms is not None:
            changes["terms"] = weighted(options.terms)
        for name in dict.fromkeys(["none", *names]):
            label, found = overridden(name, changes)
            out[label] = found
    except ValueError as error:
        raise Usage(str(error)) from error
    return out


def weighted(text: str) -> tuple[tuple[str, float], ...]:
    """Terms with weights from `name=weight,...`; a name alone weighs 1.

    **Errors:** `ValueError` for a weight that is no number.

    >>> weighted("sig=1,evidence=0.5")
    (('sig', 1.0), ('evidence', 0.5))
    """
    out = []
    for part in text.split(","):
        name, _, weight = part.partition("=")
        try:
            out.append((name.strip(), float(weight or 1)))
        except ValueError:
            raise ValueError(f"A weight must be a number; got {weight!r} in --terms.") from None
    return tuple(out)


def run(options: Options) -> dict[str, Any]:
    """Evaluate, print the table and the sentence, write the page."""
    from thinkslow import importers
    from thinkslow.dreamer.saved import environment_of

    saved = [options.open(folder) for folder in options.agents]
    environment = environment_of(saved[0], options.env)
    for one in saved[1:]:
        if options.env is None and one.environment != saved[0].environment:
            raise Usage(
                f"{saved[0].name} was trained on {saved[0].environment} and {one.name} on "
                f"{one.environment}. Evaluate them apart, or pass --env."
            )
    if options.repeat is not None:
        environment["repeat"] = options.repeat
    if environment["id"] is None:
        raise Usage(unnamed(saved[0]))
    command = shlex.join(["thinkslow", "evaluate", *map(str, options.agents), *_flags(options)])
    arms = playable(options, saved)
    metrics = [
        folder.resolve() / "../../metrics.jsonl" if importers.is_own(folder) else None
        for folder in options.agents
    ]
    return play_and_report(
        players(saved, arms, environment, options.agents, metrics=metrics, action=options.action),
        environment=environment, episodes=options.episodes, seed=options.seed,
        batch=options.batch, out=options.out, numbered=options.out == Options.out,
        command=command, quiet=options.json, pool=options.pool, max_decisions=options.max_decisions,
    )  # fmt: skip


def players(
    saved: Sequence[Any], arms: Mapping[str, Arm], environment: Mapping[str, Any],
    paths: Sequence[Path], *, metrics: Sequence[Path | None],
    action: Literal["sample", "mode"] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Stored agents as `evaluation.evaluate` takes them: `{name: {arm: agent}}`."""
    from thinkslow.evaluation import stored
    from thinkslow.evaluation.curves import curve_of

    names = stored.told_apart([one.name for one in saved], paths)
    curves = [curve_of(one, file) for one, file in zip(saved, metrics, strict=True)]
    return stored.players(saved, names, arms, environment, action=action, curves=curves)


def playable(options: Options, saved: Sequence[Any]) -> dict[str, Arm]:
    """The arms to play; of the default ones, those that the agents can.

    **Errors:** `Usage` for an arm that was asked for and that an agent cannot play.
    """
    from thinkslow.evaluation.stored import convention, unable

    arms, asked = chosen(options), options.arms != ",".join(DEFAULT)
    for one in saved:
        if (way := options.action or convention(one)) != "sample":
            said = "as asked" if options.action else "as its own project does; or --action sample"
            _say(f"{one.name}: takes the {way} of its policy ({said})")
        for name in list(arms):
            if (reason := unable(one, arms[name])) is None:
                continue
            if asked:
                raise Usage(f"{one.name} cannot play {name}: {reason}. Leave it out of --arms.")
            del arms[name]
            _say(f"{one.name}: no {name}, because {reason}")
    if not asked and not any(one.thinking.steps for one in arms.values()):
        _say(f"{WITHOUT_DECODER} instead, which needs no decoder")
        arms[WITHOUT_DECODER] = ARMS[WITHOUT_DECODER]
    return arms


def unnamed(saved: Any) -> str:
    """What to say of an agent whose source names no environment that is known here."""
    from thinkslow.envs.requirements import closest

    task = saved.environment.get("task")
    near = closest(task) if task else []
    return (
        f"{saved.name} does not say which environment of Gymnasium it plays"
        f"{f'; its task was {task}' if task else ''}. Pass --env"
        f"{f', perhaps one of {chr(44).join(near)}' if near else ''}."
    )


def play_and_report(
    agents: Mapping[str, Any], *, environment: Mapping[str, Any], episodes: int, seed: int,
    batch: int, out: Path, numbered: bool, command: str, quiet: bool, pool: bool = False,
    max_decisions: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What `evaluate` and `demo` share: play, write the page, print the table.

    Where `numbered` nobody asked for this very folder: one that is taken gets a number behind it.
    """
    from thinkslow.evaluation import Occupied, evaluate

    for folder in (out, *(out.with_name(f"{out.name}-{number}") for number in range(2, 1000))):
        try:
            with progress() as show:
                result = evaluate(
                    agents, environment, episodes=episodes, seed=seed, batch=batch, out=folder,
                    pool=pool, max_decisions=max_decisions, command=command, show=show,
                )  # fmt: skip
            return show_result(result.summary, result.report(), quiet=quiet)
        except Occupied as error:
            if not numbered:
                raise
            _say(f"{str(error).partition(':')[0]}. Looking for another folder.")
        except KeyboardInterrupt:
            if (folder / "evaluation.json").exists():
                _say(
                    f"The episodes that were finished are in {folder / 'episodes.jsonl'}. The same "
                    f"command goes on with the rest; thinkslow report {folder} shows what there is."
                )
            raise
    raise Usage(f"{out} and a thousand more are taken. Pass another --out.")


def show_result(summary: Mapping[str, Any], page: Path, *, quiet: bool) -> dict[str, Any]:
    """The table, what must be known of its numbers, the sentence, and where the page is."""
    from thinkslow.evaluation.report.conclusion import conclusion
    from thinkslow.evaluation.report.table import table

    sentence = conclusion(dict(summary))
    if not quiet:
        terminal = Console()
        terminal.print(table(dict(summary)))
        for text in (*summary["notes"], sentence):
            terminal.print(text, markup=False, highlight=False)
        terminal.print(f"The page: {page}", soft_wrap=True, markup=False, highlight=False)
    return {**summary, "conclusion": sentence, "report": str(page)}


def _say(text: str) -> None:
    console().print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar of finished blocks of episodes, on standard error; the package's log above it."""
    columns = (
        TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console(), transient=True) as bar, log_to(bar.console):
        task = bar.add_task("starting", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show


def _flags(options: Options) -> list[str]:
    """The flags that differ from their defaults, as they would be typed."""
    flags = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.name not in ("agents", "json", "debug") and value != field.default:
            flags += [f"--{field.name.replace('_', '-')}", str(value)]
    return flags
