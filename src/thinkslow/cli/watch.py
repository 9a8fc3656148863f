"""`thinkslow watch`: one episode as a page to step through, and as a video."""

import dataclasses
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from thinkslow import registry, settings
from thinkslow.cli import flags
from thinkslow.cli.common import output, say
from thinkslow.cli.common import parse as parse_options
from thinkslow.cli.playing import PlayingAgents
from thinkslow.cli.results import progress
from thinkslow.cli.usage import Usage
from thinkslow.plural import plural
from thinkslow.settings import setting

if TYPE_CHECKING:
    from thinkslow.evaluation.watching.session import Watched

DESCRIPTION = """Watch an agent play one episode.

The command writes player.html, a page to step through the episode in any browser; episode.mp4 (with
the extra `video`, else episode.gif); and decisions.jsonl, the numbers. The page shows each frame,
the beliefs before and after thinking, imagined and real frames, surprise, gate, objective, value
and policy.

One arm acts, by default `none`. Every other arm thinks about the same frames at each decision, so
the arms can be compared. One episode is only an illustration: `thinkslow evaluate` tells whether
thinking helps. `thinkslow arms` lists the arms.

examples:
  thinkslow watch collect-good
  thinkslow watch collect-half --arm evidence --gate surprise --share 0.2
  thinkslow watch runs/first/agents/20000 --arm sig-3 --shift dropped:3"""


LARGE_MB = 15
"""Size of a page, in MB, above which a warning is printed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(PlayingAgents):
    """Options of `thinkslow watch`."""

    GROUP: ClassVar = "episode"

    agent: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="AGENT")]
    """A bundled agent by name, an agent folder, or a log folder or checkpoint of another
    project."""
    arm: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="ARM,...")
    ] = ()
    """Let these arms think, besides `none`; by default evidence and sig-3. Repeat the flag or join
    names by commas for more."""
    acting: Annotated[str, tyro.conf.arg(metavar="ARM")] = "none"
    """Take the actions of this arm."""
    seed: int = settings.seed()
    """Take the episode and the agent's random numbers from this seed, as in `evaluate`."""
    episode: int = setting(0, least=0)
    """Watch episode N of `evaluate` with this seed, counted from 0."""
    repeat: int | None = setting(None, least=1)
    """Repeat each action N times; by default as in training."""
    action: Literal["sample", "mode"] | None = None
    """Take a sample or the mode of the policy; by default as in the evaluation of the project
    that trained the agent."""
    max_decisions: int = setting(500, least=1)
    """Cut the episode after N decisions, so that the page stays small."""
    without_video: bool = False
    """Write no video."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Write to this folder; by default out/watch/AGENT-SEED."""
    changes: Annotated[tyro.conf.OmitArgPrefixes[flags.Changes], tyro.conf.arg(name="thinking")] = (
        dataclasses.field(default_factory=flags.Changes)
    )
    """Changed settings of every arm that refines."""

    def check(self) -> None:
        """**Errors:** `ValueError` for unknown arms or impossible settings."""
        super().check()
        flags.given(self.changes)
        for name in self.arm_names:
            registry.check("arm", name)

    @property
    def arm_names(self) -> list[str]:
        """The requested arms, each once."""
        names = [name.strip() for given in self.arm for name in given.split(",")]
        acting = [] if self.acting == "none" else [self.acting]
        return list(dict.fromkeys([*filter(None, names), *acting]))


def parse(arguments: Sequence[str]) -> Options:
    """**Errors:** `Usage` for impossible values."""
    return parse_options(Options, "watch", DESCRIPTION, arguments)


def run(options: Options) -> dict[str, Any]:
    """Play, write the files, and print their paths.

    **Errors:** `Usage` for an agent without an environment, or an arm that it cannot play; those of
    `thinkslow.watch`.
    """
    options.locate()
    from thinkslow.evaluation.watching.session import folder_of, watch
    from thinkslow.loading import agent_of

    saved = options.open(options.agent)
    environment = options.environment([saved])
    if options.repeat is not None:
        environment["repeat"] = options.repeat
    agent = agent_of(saved, action=options.action)
    arms, acting = chosen(options, agent)
    folder = options.out or free(folder_of(saved.name, options.seed, options.episode))
    try:
        with progress() as show:
            found = watch(
                agent,
                environment,
                folder,
                arms=arms,
                acting=acting,
                seed=options.seed,
                episode=options.episode,
                max_decisions=options.max_decisions,
                video=not options.without_video,
                step_limit_s=options.step_limit,
                reset_limit_s=options.reset_limit,
                command=command(options),
                show=show,
            )
    except KeyboardInterrupt:
        if (folder / "player.html").exists():
            say(f"What was played is in {folder / 'player.html'}.")
        raise
    _report(options, found)
    written = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(found).items()
    }
    return {**written, "score": found.score if math.isfinite(found.score) else None}


def _report(options: Options, found: "Watched") -> None:
    """Print the paths, and what to know of the files."""
    if not options.json:
        for what in ("player", "video", "decisions"):
            if (path := getattr(found, what)) is not None:
                output().print(f"{what}: {path}", soft_wrap=True)
    if found.ended == "cut":
        say(
            f"The episode was cut after {plural(found.length, 'decision')}; --max-decisions N "
            "shows more."
        )
    size = found.player.stat().st_size / 1e6
    if size > LARGE_MB:
        say(
            f"The page is {size:.0f} MB, which some browsers open slowly; fewer arms or a smaller "
            "--max-decisions make it smaller."
        )


def chosen(options: Options, agent: Any) -> tuple[dict[str, Any] | None, str]:
    """The arms by label, None for the default ones, and the label of the one that acts.

    **Errors:** `Usage` for an arm that the agent cannot play.
    """
    from thinkslow.evaluation.watching.session import thinkers

    names, changes = options.arm_names, flags.given(options.changes)
    if not names and changes:
        names = [name for name in thinkers(agent, None) if name != "none"]
    if not names:
        return None, options.acting
    try:
        arms = flags.arms(names, changes)
        thinkers(agent, arms)
    except ValueError as error:
        raise Usage(str(error)) from error
    labels = dict(zip(names, arms, strict=True))
    for name, reason in flags.without_effect(changes, arms).items():
        say(f"--{name.replace('_', '-')} changes nothing here: {reason}.")
    return arms, labels.get(options.acting, options.acting)


def free(folder: Path) -> Path:
    """The folder; if it is in use, the first free folder with a number after its name."""
    candidates = (folder, *(folder.with_name(f"{folder.name}.{n}") for n in range(2, 1000)))
    return next((one for one in candidates if not one.exists()), folder)


def command(options: Options) -> str:
    """The command as it would be typed."""
    return shlex.join(
        ["thinkslow", "watch", str(options.agent), *flags.typed(options, without=("agent",))]
    )
