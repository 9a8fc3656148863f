"""Watch an agent: one episode as a page to step through, a video and a table of its decisions."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.agent.agent import Agent
from thinkslow.agent.arms.arm import Arm
from thinkslow.agent.thinking import Thinking
from thinkslow.envs import VectorEnv, lateness
from thinkslow.envs.descriptions import described_environment
from thinkslow.evaluation import subjects
from thinkslow.evaluation.calibrate import calibrated
from thinkslow.evaluation.records import BASE
from thinkslow.evaluation.seeds import episode_seed
from thinkslow.evaluation.video import suffix
from thinkslow.evaluation.watching import seeing
from thinkslow.evaluation.watching.block import Gathering, rows
from thinkslow.evaluation.watching.episode import Episode, play
from thinkslow.evaluation.watching.film import Film
from thinkslow.evaluation.watching.page import page
from thinkslow.saved.provenance import provenance
from thinkslow.settings import MOST_SEED, check_range
from thinkslow.storage import atomic, lines
from thinkslow.storage.lock import writing
from thinkslow.storage.paths import expanded

ARMS = ("evidence", "sig-3")
"""Default arms: evidence of the present frame, and information gain in the future."""
WITHOUT_DECODER = ("entropy-3",)
"""The default arm for an agent without a decoder."""
MOST = 500
"""Default number of decisions after which an episode is cut."""
PLAYER, DECISIONS = "player.html", "decisions.jsonl"

Show = Callable[[str, int, int], None]
How = str | Thinking | Arm | AbstractAgent


@dataclasses.dataclass(frozen=True)
class Watched:
    """The files of `watch`, and facts of the episode."""

    player: Path
    """The page: open it in any browser."""
    video: Path | None
    """None if the environment shows no image, or if no video was requested."""
    decisions: Path
    """JSON Lines: a record for every arm at every decision."""
    length: int
    """Number of decisions."""
    score: float
    ended: str
    """`over`, `cut`, `crashed`, or `stopped` by Ctrl-C."""


def watch(
    agent: AbstractAgent,
    environment: str | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    *,
    arms: Sequence[str] | Mapping[str, How] | None = None,
    acting: str = BASE,
    seed: int = 0,
    episode: int = 0,
    max_decisions: int = MOST,
    video: bool = True,
    step_limit_s: float = 60.0,
    reset_limit_s: float = 300.0,
    command: str = "",
    show: Show = lambda *_: None,
) -> Watched:
    """Play one episode and write a page that steps through it, a video and its decisions.

    >>> import thinkslow
    >>> agent = thinkslow.load("collect-good")                      # doctest: +SKIP
    >>> thinkslow.watch(agent, out="out/mine").player               # doctest: +SKIP
    PosixPath('out/mine/player.html')

    One arm acts. Every other arm thinks about the same frames, from the acting arm's memory and
    with the same random numbers, so they can be compared.

    Args:
        agent: the agent that plays. `none` is the same agent without thinking; if the agent
            itself thinks, it is watched too, as `agent`.
        environment: its id, or a mapping; None: `agent.about.environment`.
        out: the folder to write to, which must not hold an episode yet. None: `out/watch/`, agent
            and seed.
        arms: names of arms, or a dictionary of your own ways to think. None: `evidence` and
            `sig-3`, if the agent can play them.
        acting: the arm whose actions are taken.
        seed: seed of the episode and of the agent's noise, as in `evaluate`.
        episode: the number of the episode that `evaluate` plays with that seed.
        max_decisions: the episode is cut after this number of decisions.
        video: whether to write `episode.mp4`, or `episode.gif` where PyAV is not installed.
        step_limit_s: seconds that a step of the environment may take.
        reset_limit_s: the same for a reset, and for making the environment.
        command: the command to show on the page; by default this call.
        show: called with the present part, the number of decisions made, and their maximum.

    **Cost:** for each decision one of every arm, and 9 decodings of each; about a minute for 250
    decisions of three arms of a small agent on two cores, most of it compiling.

    **Errors:** `ValueError` for impossible settings, or an arm that the agent cannot play;
    `FileExistsError` if `out` holds an episode; `lock.Locked` while another process writes there;
    those of the environment. On `KeyboardInterrupt` what was played is written first.
    """
    if not isinstance(agent, AbstractAgent):
        raise TypeError(
            f"`agent` must be one agent, and `arms` its ways to think; got {type(agent).__name__}."
        )
    folder = folder_of(agent.about.name, seed, episode) if out is None else expanded(out)
    check_range("seed", seed, 0, MOST_SEED)
    check_range("episode", episode, 0)
    check_range("max_decisions", max_decisions, 1)
    agents = thinkers(agent, arms)
    if acting not in agents:
        raise ValueError(f"`acting` must be one of {', '.join(agents)}; got {acting!r}.")
    described = _described(agent, environment)
    agents = {
        name: subjects.awaits(one, lateness(described.get("shift", "")))
        for name, one in agents.items()
    }
    with writing(folder) as lock:
        refuse_taken(folder)
        show("preparing the arms", 0, max_decisions)
        for name in agents:
            agents[name] = calibrated(agents[name], described, seed=seed)
        own = episode_seed(seed, episode)
        with VectorEnv(
            **described, count=1, step_limit_s=step_limit_s, reset_limit_s=reset_limit_s
        ) as envs:
            named = agent.about.name or "agent"
            agents = {name: subjects.fitted(one, envs, name=named) for name, one in agents.items()}
            played = play(
                agents,
                acting,
                envs,
                seed=seed,
                environment_seed=own,
                max_decisions=max_decisions,
                tick=lambda what, done: show(what, done, max_decisions),
            )
            observations, actions = envs.observation_space, envs.action_spaces
        if played.stop is not None and not played.length:
            raise played.stop
        about = {
            **_facts(named, agents),
            "environment": described,
            "seed": seed,
            "episode": episode,
            "environment_seed": own,
            "command": command or _called(named, described, acting, seed, episode),
            **provenance(),
        }
        lock.renew()
        result = write(folder, played, agents, observations, actions, about, video=video, show=show)
        if played.stop is not None:
            raise played.stop
        return result


def _described(agent: AbstractAgent, environment: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """The environment to play, by default the agent's.

    **Errors:** `ValueError` if it is not known.
    """
    given = agent.about.environment if environment is None else environment
    if isinstance(given, Mapping) and not given.get("id"):
        raise ValueError("Which environment the agent plays is not known. Give `environment`.")
    return described_environment(given)


def _facts(name: str, agents: Mapping[str, AbstractAgent]) -> dict[str, Any]:
    """The facts of the agent, and the settings of its arms."""
    return {
        "agent": subjects.facts(name, {BASE: next(iter(agents.values()))}),
        "settings": [
            subjects.settings(name, arm, one) | {"threshold": getattr(one, "threshold", None)}
            for arm, one in agents.items()
        ],
    }


def folder_of(name: str | None, seed: int, episode: int) -> Path:
    """The default folder of an episode.

    >>> folder_of("collect-good", 0, 0).as_posix(), folder_of(None, 0, 3).as_posix()
    ('out/watch/collect-good-0', 'out/watch/agent-0-3')
    """
    own = f"{name or 'agent'}-{seed}" + (f"-{episode}" if episode else "")
    return Path("out/watch") / own.replace("/", "-")


def refuse_taken(folder: Path) -> None:
    """**Errors:** `FileExistsError` for a folder that holds what would be overwritten."""
    for name in (PLAYER, DECISIONS, f"episode{suffix()}"):
        if (folder / name).exists():
            raise FileExistsError(f"{folder} holds {name} already. Give another folder.")


def thinkers(
    agent: AbstractAgent, arms: Sequence[str] | Mapping[str, How] | None
) -> dict[str, AbstractAgent]:
    """The thinking agents by name, `none` first.

    **Errors:** `ValueError` for an arm that the agent cannot play.
    """
    inner = agent.inner
    if inner is None:
        if arms:
            raise ValueError(
                f"{type(agent).__name__} does not think as arms do: `arms` must be empty; got "
                f"{', '.join(arms)}."
            )
        return {BASE: agent}
    out: dict[str, AbstractAgent] = {BASE: inner.having(Thinking())}
    if not isinstance(agent, Agent) or agent.settings != Thinking():
        out["agent"] = agent
    if arms is None:
        return out if len(out) > 1 else {**out, **_default(inner)}
    ways = arms if isinstance(arms, Mapping) else {name: name for name in arms}
    for name, how in ways.items():
        if name == BASE:
            continue
        try:
            out[name] = how if isinstance(how, AbstractAgent) else inner.thinking(how)
        except ValueError as error:
            raise ValueError(f"The agent cannot play {name}: {error}") from error
    return out


def _default(agent: Agent) -> dict[str, AbstractAgent]:
    """The default arms that the agent can play."""
    out: dict[str, AbstractAgent] = {}
    for names in (ARMS, WITHOUT_DECODER):
        for name in () if out else names:
            try:
                out[name] = agent.thinking(name)
            except ValueError:  # it lacks something that the arm needs
                continue
    return out


def write(
    folder: Path,
    played: Episode,
    agents: Mapping[str, AbstractAgent],
    observations: Mapping[str, Any],
    actions: Mapping[str, Any],
    about: Mapping[str, Any],
    *,
    video: bool,
    show: Show = lambda *_: None,
) -> Watched:
    """Decode the episode and write the page, the video and the records.

    Each file is either complete or absent.
    """
    model = agents[played.acting].model
    parts = seeing.parts_of(model, observations)
    if any(one.states is None for told in played.thoughts.values() for one in told):
        parts = parts._replace(decoded=())
    gathering = Gathering(played, parts, actions)
    film = None
    if video and parts.images:
        film = Film(folder / f"episode{suffix()}", played, parts)
    try:
        for number, shown in _shown(model, played, parts):
            show("decoding", number, played.length)
            if shown is not None:
                gathering.add(shown)
            if film is not None:
                film.add(number, shown)
        show("writing", played.length, played.length)
        block = gathering.block(about, agents)
        atomic.write_text(folder / PLAYER, page(block))
        lines.write(folder / DECISIONS, rows(block))
        made = film.close() if film is not None else None
    finally:
        if film is not None:
            film.drop()
    return Watched(
        folder / PLAYER, made, folder / DECISIONS, played.length, sum(played.rewards), played.ended
    )


def _shown(
    model: Any, played: Episode, parts: seeing.Parts
) -> Iterator[tuple[int, seeing.Shown | None]]:
    if parts.decoded:
        yield from ((one.number, one) for one in seeing.decoded(model, played, parts.decoded))
    else:
        yield from ((number, None) for number in range(played.length))


def _called(name: str, environment: Mapping[str, Any], acting: str, seed: int, episode: int) -> str:
    """The Python call, as text."""
    return (
        f"thinkslow.watch({name}, {dict(environment)!r}, acting={acting!r}, seed={seed}, "
        f"episode={episode})"
    )
