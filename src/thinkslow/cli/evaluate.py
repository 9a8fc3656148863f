"""`thinkslow evaluate`: does thinking help this agent?"""

import dataclasses
import itertools
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from thinkslow import registry, settings
from thinkslow.agent.arms.arm import Arm, arm
from thinkslow.agent.arms.presets import DEFAULT
from thinkslow.cli import early, flags
from thinkslow.cli.common import beside_none, output, say
from thinkslow.cli.common import parse as parse_options
from thinkslow.cli.exports import Showing, of_evaluation
from thinkslow.cli.playing import PlayingAgents
from thinkslow.cli.results import progress, show_result
from thinkslow.cli.usage import Usage
from thinkslow.settings import setting

DESCRIPTION = """Play agents with and without thinking, under paired seeds.

An arm is a way to think; `none` does not think. Every arm plays the same environment seeds with
the same random numbers, so a difference between two arms comes from thinking alone. The command
prints a table and writes summary.json, episodes.jsonl and report.html.

Use `thinkslow arms` to list the arms, terms, updates, readouts and gates, and `thinkslow agents` to
list the bundled agents. The thinking options change every arm that refines. Use them to study one
setting or, with --terms, your own objective.

examples:
  thinkslow evaluate runs/first/agents/20000 --arms none,evidence --episodes 50
  thinkslow evaluate collect-good --arms evidence --gate surprise --share 0.2
  thinkslow evaluate collect-half --arms evidence --steps 16 --deadline-ms 20
  thinkslow evaluate ~/logdir/pong --env ALE/Pong-v5 --repeat 4 --action mode"""

WITHOUT_DECODER = "entropy-3"
"""Replaces the default refinements that need a decoder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Showing, PlayingAgents):
    """Options of `thinkslow evaluate`."""

    GROUP: ClassVar = "evaluation"

    agents: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="AGENT ...")]
    """Bundled agents by name, agent folders, or log folders and checkpoints of other projects."""
    arms: Annotated[str, tyro.conf.arg(metavar="ARM,...")] = ",".join(DEFAULT)
    """Play these arms and compare each with `none`. `thinkslow arms` lists them."""
    episodes: int = setting(20, least=2)
    """Play N episodes of each arm."""
    seed: int = settings.seed()
    """Take environment seeds and random numbers from this seed."""
    repeat: int | None = setting(None, least=1)
    """Repeat each action N times; by default as in training."""
    action: Literal["sample", "mode"] | None = None
    """Take a sample or the mode of the policy; by default as in the evaluation of the project
    that trained the agent."""
    batch: int = setting(8, least=1)
    """Play N environments in parallel, one process each."""
    max_decisions: int | None = setting(None, least=1)
    """Cut an episode after N decisions. The table reports how many episodes were cut."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("out/evaluate")
    """Write the records and the page to this folder."""
    resume: bool = False
    """Continue the evaluation in --out, and refuse if there is none. Without this flag the same
    command continues too, or begins."""
    delay: int = setting(0, least=0, most=5)
    """Show every observation N decisions late, 0 to 5; the same as --shift delayed:N."""
    real_time: Annotated[float | None, tyro.conf.arg(metavar="MS")] = setting(None, above=0)
    """Let the environment make a step every MS milliseconds while an agent thinks, so that slow
    decisions act late; by default the environment waits."""
    video: bool = False
    """Also write the first episode of every arm as a video: MP4 with the extra `video`, else
    GIF."""
    protocol: Literal["paired-v1", "paired-v2"] = "paired-v1"
    """Play whole episodes (`paired-v1`), or windows of 25 decisions from common snapshots of the
    base agent's episodes (`paired-v2`): less noise, little bias, and a check of the two."""
    pool: bool = False
    """Also judge all agents together, as training seeds of one recipe."""
    names: Annotated[str | None, tyro.conf.arg(metavar="NAME,...")] = None
    """Use these names for the agents; by default their own names, with the differing parts of
    their paths."""
    members: Annotated[str | None, tyro.conf.arg(metavar="SPEC")] = None
    """Use plausible parameters from this source instead of the agent's ensemble, for example
    noise:0.05."""
    changes: Annotated[tyro.conf.OmitArgPrefixes[flags.Changes], tyro.conf.arg(name="thinking")] = (
        dataclasses.field(default_factory=flags.Changes)
    )
    """Changed settings of every arm that refines."""

    def check(self) -> None:
        """**Errors:** `ValueError` for unknown names and impossible or contradicting options."""
        super().check()
        if not self.agents:
            raise Usage("Say which agent: thinkslow evaluate AGENT. `thinkslow train` makes one.")
        if self.pool and len(self.agents) < 2:
            raise Usage("--pool needs two agents or more, each of another training seed.")
        if self.resume and not (self.out / "evaluation.json").is_file():
            raise Usage(
                f"--resume continues an evaluation, and {self.out} holds none. Pass its --out, or "
                "leave --resume out to begin one."
            )
        flags.given(self.changes)
        for name in self.arm_names:
            registry.check("arm", name)
        if self.members is not None:
            registry.check("members", self.members)

    def environment(self, saved: Sequence[Any]) -> dict[str, Any]:
        found = super().environment(saved)
        if self.repeat is not None:
            found["repeat"] = self.repeat
        if self.delay:
            shifts = [found.get("shift"), f"delayed:{self.delay}"]
            found["shift"] = ",".join(filter(None, shifts))
        return found

    @property
    def arm_names(self) -> list[str]:
        """The arms in `--arms`, `none` first."""
        return beside_none(self.arms)


def parse(arguments: Sequence[str]) -> Options:
    """**Errors:** `Usage` for impossible values."""
    return parse_options(Options, "evaluate", DESCRIPTION, arguments)


def chosen(options: Options) -> dict[str, Arm]:
    """The arms to play, `none` first, with what the flags override.

    **Errors:** `Usage` for an unknown arm or an impossible value.
    """
    try:
        return flags.arms(options.arm_names, flags.given(options.changes))
    except ValueError as error:
        raise Usage(str(error)) from error


def run(options: Options) -> dict[str, Any]:
    """Evaluate, print the table and the verdict, and write the page."""
    options.locate()
    options.check_exports()
    if (options.out / "evaluation.json").exists():  # perhaps there is nothing to play
        return _run(options)
    count = min(options.batch, options.episodes)
    with early.environments(options.agents, options.environment, count):
        return _run(options)


def _run(options: Options) -> dict[str, Any]:
    asked, members = chosen(options), plausible(options)
    saved = [options.open(source) for source in options.agents]
    environment = options.environment(saved)
    agents = [
        thinker(one, source, options, members)
        for one, source in zip(saved, options.agents, strict=True)
    ]
    arms = playable(options, asked, agents)
    warn_of_idle_flags(options, arms, agents)
    names = named(options, [one.name for one in saved])
    command = shlex.join(
        [
            "thinkslow",
            "evaluate",
            *map(str, options.agents),
            *flags.typed(options, without=("agents", "out", "resume")),
        ]
    )
    with options.cause_first(environment):
        return play_and_report(
            {
                name: {label: agent.thinking(arm) for label, arm in arms.items()}
                for name, agent in zip(names, agents, strict=True)
            },
            {
                "environment": environment,
                "episodes": options.episodes,
                "seed": options.seed,
                "batch": options.batch,
                "pool": options.pool,
                "max_decisions": options.max_decisions,
                "real_time_ms": options.real_time,
                "protocol": options.protocol,
                "video": options.video,
                **options.limits(),
            },
            out=options.out,
            numbered=options.out == Options.out and not options.resume,
            command=command,
            quiet=options.json,
            exports=options,
        )


def named(options: Options, own: Sequence[str]) -> list[str]:
    """The names of the agents: from `--names`, or their own, made distinct by their paths.

    **Errors:** `Usage` for too few names, too many, or one given twice.
    """
    from thinkslow.evaluation.subjects import told_apart

    if options.names is None:
        return told_apart(own, options.agents)
    names = [name.strip() for name in options.names.split(",") if name.strip()]
    if len(names) != len(own) or len(set(names)) < len(names):
        raise Usage(
            f"--names needs as many different names as agents, {len(own)}; got {options.names}."
        )
    return names


def plausible(options: Options) -> Any:
    """The source of plausible parameters in `--members`; None if it is not given.

    **Errors:** `Usage` for an argument that the source does not take.
    """
    try:
        return options.members and registry.make("members", options.members)
    except ValueError as error:
        raise Usage(str(error)) from error


def thinker(saved: Any, source: Path, options: Options, members: Any) -> Any:
    """The agent from its saved form, with the learning curve of its run. The source `members`, if
    given, replaces its ensemble.
    """
    from thinkslow.evaluation.curves import read_curve
    from thinkslow.loading import agent_of
    from thinkslow.zoo import located

    agent = agent_of(saved, action=options.action)
    if agent.about.curve is None:
        curve = read_curve(located(source).resolve() / "../../metrics.jsonl")
        agent = dataclasses.replace(agent, about=dataclasses.replace(agent.about, curve=curve))
    if members is None:
        return agent
    return agent.having_members(members, seed=options.seed)


def playable(options: Options, arms: Mapping[str, Arm], agents: Sequence[Any]) -> dict[str, Arm]:
    """The chosen arms that the agents can play. Default arms that they cannot play are left out.

    **Errors:** `Usage` for an arm of `--arms` that an agent cannot play.
    """
    arms, asked = dict(arms), options.arms != ",".join(DEFAULT)
    for agent in agents:
        name = agent.about.name
        if agent.about.action != "sample":
            said = "as asked" if options.action else "as its own project does; or --action sample"
            say(f"{name}: takes the {agent.about.action} of its policy ({said})")
        for label in list(arms):
            try:
                agent.thinking(arms[label])
            except ValueError as error:
                if asked:
                    raise Usage(
                        f"{name} cannot play {label}: {error} Leave it out of --arms."
                    ) from error
                del arms[label]
                say(f"{name}: no {label}: {error}")
    if not asked and not any(one.thinking.steps for one in arms.values()):
        say(f"{WITHOUT_DECODER} instead, which needs no decoder")
        arms[WITHOUT_DECODER] = arm(WITHOUT_DECODER)
    return arms


def warn_of_idle_flags(options: Options, arms: Mapping[str, Arm], agents: Sequence[Any]) -> None:
    """Name the flags that change nothing in this call."""
    idle = flags.without_effect(flags.given(options.changes), arms)
    if all(agent.about.source is None for agent in agents):
        reason = "every agent is in thinkslow's format, which stores this"
        for name in ("classes", "vectors"):
            if getattr(options, name) is not None:
                idle[name] = reason
    if options.members is not None and not any(one.compares_members for one in arms.values()):
        idle["members"] = "no arm compares plausible parameters, as pig-3 does"
    for name, reason in idle.items():
        say(f"--{name.replace('_', '-')} changes nothing here: {reason}.")


def play_and_report(
    agents: Mapping[str, Any],
    playing: Mapping[str, Any],
    *,
    out: Path,
    numbered: bool,
    command: str,
    quiet: bool,
    exports: Showing | None = None,
    brief: bool = False,
    afresh: bool = False,
    beside: Callable[[Path], Any] = lambda _: None,
) -> dict[str, Any]:
    """Play, write the page and print the table, for `evaluate` and `demo`.

    Args:
        agents: as for `evaluation.evaluate`.
        playing: the other arguments of `evaluation.evaluate`.
        out: the folder of the records.
        numbered: whether a folder that is in use gets a number after its name: the user did not
            choose it.
        command: the command to store in the records, without its folder.
        quiet: print no table.
        exports: where else the result is written.
        brief: for `show_result`.
        afresh: whether the folder of a finished evaluation is in use too; otherwise the evaluation
            is shown again.
        beside: adds more files for the page to the folder.
    """
    from thinkslow.evaluation import Occupied, evaluate, read
    from thinkslow.evaluation.records import HEADER
    from thinkslow.storage.lock import writing

    numbers = range(2, 1000) if numbered else (2,)
    folders = [out, *(Path(f"{out}-{number}") for number in numbers)]
    for folder, following in itertools.pairwise(folders):
        whole = f"{command} --out {shlex.quote(str(folder))}"
        try:
            if numbered and afresh and (folder / HEADER).exists() and read(folder).finished:
                continue
            with progress() as show:
                result = evaluate(agents, **playing, out=folder, command=whole, show=show)
            say("Comparing the arms and writing the page ...")
            with writing(folder):
                beside(folder)
                if exports is not None:
                    exports.export(of_evaluation(result))
                page = result.report()
            shown = show_result(result.summary, page, quiet=quiet, brief=brief)
            if playing.get("video") and not quiet:
                _say_videos(result.folder)
            return shown
        except Occupied as error:
            if not numbered:
                raise
            say(f"{str(error).partition(':')[0].rstrip('.')}: trying {following}.")
        except KeyboardInterrupt:
            if (folder / "episodes.jsonl").exists():
                say(
                    f"The episodes that were finished are in {folder / 'episodes.jsonl'}. The same "
                    f"command continues with the rest; thinkslow report {folder} shows them."
                )
            elif (folder / "evaluation.json").exists():
                say(f"No episode was finished in {folder}. The same command begins them again.")
            raise
    raise Usage(f"{out} and a thousand more are taken. Pass another --out.")


def _say_videos(folder: Path) -> None:
    videos = sorted(folder.glob("video/*"))
    if not videos:
        say(
            "--video changes nothing here: it records first episodes that show an image, are "
            "played whole, not in windows, and were not played before."
        )
    for path in videos:
        output().print(f"A video: {path}", soft_wrap=True)
