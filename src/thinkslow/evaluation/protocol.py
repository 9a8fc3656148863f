"""Episodes under paired seeds: does thinking help this agent?

Every arm plays the same environment seeds with the same keys for latent and action noise, so arms
differ only in their thinking. An arm without thinking is the base agent, bit for bit. The protocol
`paired-v1`:

- one episode per environment seed and arm; the unit of the statistics is the pair;
- image metrics at every fifth decision: the present frame decoded from the state that acted, and
  open-loop predictions 1, 3 and 8 steps ahead with the actions really taken and the mode of the
  imagined priors, against the real frames;
- differences of image metrics are taken on the same frames, between the state that acted and the
  state without thinking at that moment. (Arms see different frames, and some frames are easier to
  predict.);
- a frame that the environment flags as missing or old is not scored;
- milliseconds per decision: one compiled call for the whole batch, warm, median over decisions.
"""

import logging
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import jax

from thinkslow.agent.abstract import AbstractAgent
from thinkslow.cores import cores
from thinkslow.envs import VectorEnv, arguments, lateness
from thinkslow.envs.descriptions import described_environment
from thinkslow.evaluation import records, subjects, whole, windows
from thinkslow.evaluation.blocks import Show, Sitting
from thinkslow.evaluation.records import BASE, Header, Records
from thinkslow.evaluation.result import Evaluation
from thinkslow.evaluation.scoring import visible
from thinkslow.evaluation.seeds import episode_seed
from thinkslow.evaluation.shadow import Pictures
from thinkslow.evaluation.subjects import Agents
from thinkslow.plural import plural
from thinkslow.saved.provenance import provenance
from thinkslow.settings import MOST_SEED, check_range, fits, plain
from thinkslow.storage.headers import Occupied, as_read, refuse_other
from thinkslow.storage.lock import writing
from thinkslow.storage.paths import expanded
from thinkslow.storage.reading import is_file

log = logging.getLogger("thinkslow")

Protocol: TypeAlias = Literal["paired-v1", "paired-v2"]


def evaluate(
    agents: Agents,
    environment: str | Mapping[str, Any],
    *,
    episodes: int,
    seed: int,
    out: str | Path | None = None,
    batch: int = 8,
    resume: bool = True,
    max_decisions: int | None = None,
    real_time_ms: float | None = None,
    protocol: Protocol = "paired-v1",
    pool: bool = False,
    step_limit_s: float = 60.0,
    reset_limit_s: float = 300.0,
    video: bool = False,
    command: str = "",
    show: Show = lambda *_: None,
) -> Evaluation:
    """Play every arm of every agent under paired seeds.

    Args:
        agents: `{arm: agent}`, or `{name: {arm: agent}}` for several agents, of any architecture.
            The arm `none` is the baseline.
        environment: its id, or a mapping with `id` and optionally `size` and `repeat`.
        episodes: the number of episodes of each arm, 2 or more.
        seed: environment seeds and noise follow from it.
        out: the folder of the records, which are written whenever a block of episodes ends. If it
            holds an evaluation with the same settings, this is continued if it is unfinished or if
            `episodes` is larger, and returned as it is if it is finished. Any other evaluation is
            refused. None: a temporary folder.
        batch: the number of environments played in parallel, one process each.
        resume: whether to continue or return the evaluation in `out`; if not, it is refused.
        max_decisions: an episode is cut after this number of decisions; cut episodes are counted.
        real_time_ms: milliseconds of one step of the environment, which continues while an agent
            thinks. A decision that takes longer acts the matching number of whole steps later, and
            the previous action continues until then. The decision time of an arm is measured
            before its first episode. Images are not scored. None: the environment waits.
        protocol: `paired-v1`, whole episodes; or `paired-v2`, windows of 25 decisions from
            common snapshots of the base agent's episodes (`evaluation.windows`).
        pool: whether to also judge the agents together, as training seeds of one recipe.
        step_limit_s: seconds that a step of an environment may take. After that the environment is
            restarted, and its episode counts as crashed.
        reset_limit_s: the same for a reset, and for making the environment.
        video: whether to write the first episode of every arm to `video/` in the folder, as MP4
            if PyAV is installed, otherwise as GIF.
        command: the command to store in the records; by default this call.
        show: called with the present part, the number of finished episodes, and of all episodes.

    **Errors:** `ValueError` for impossible settings or agents that do not fit; `Occupied` for a
    folder that holds another evaluation; `lock.Locked` while another process writes
    there; `Failing` if most episodes of an arm end in failures of the environment; errors of the
    environment. Finished blocks are always kept and can be continued.
    """
    episodes, seed, batch = plain(episodes), plain(seed), plain(batch)
    max_decisions, real_time_ms = plain(max_decisions), plain(real_time_ms)
    named = subjects.by_name(agents)
    setting = described_environment(environment)
    named = subjects.awaiting(named, lateness(setting.get("shift", "")))
    _check_numbers(episodes, seed, batch, max_decisions, real_time_ms)
    if real_time_ms is not None:
        setting["real_time_ms"] = float(real_time_ms)
    refuse_protocol(protocol, named, real_time_ms)
    facts = [subjects.facts(name, arms) for name, arms in named.items()]
    if pool:
        _check_pool(facts)
    made = provenance()
    sitting = {
        "command": command or _called(setting, episodes, seed, batch),
        "revision": made["revision"],
        "machine": machine(),
        "began": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }
    header = Header(
        protocol=protocol,
        environment=setting,
        agents=facts,
        arms=_arms(named),
        episodes=episodes,
        seed=seed,
        batch=batch,
        max_decisions=max_decisions,
        pool=pool,
        versions=made["versions"],
        images={},
        curves=_curves(named),
        sittings=[sitting],
    )
    header = as_read(header)
    temporary = out is None
    folder = Path(tempfile.mkdtemp(prefix="thinkslow-")) if out is None else expanded(out)
    with writing(folder):
        before = _before(folder, header, resume)
        if before is not None and before.holds(header):
            return Evaluation(folder, temporary=temporary)
        with VectorEnv(
            **arguments(setting),
            count=header.count,
            step_limit_s=step_limit_s,
            reset_limit_s=reset_limit_s,
        ) as envs:
            _play_all(folder, header, before, named, envs, show, video=video)
    return Evaluation(folder, temporary=temporary)


def _check_numbers(
    episodes: int, seed: int, batch: int, max_decisions: int | None, real_time_ms: float | None
) -> None:
    """**Errors:** `TypeError` for another type, `ValueError` for a number out of range."""
    given = {"episodes": episodes, "seed": seed, "batch": batch, "max_decisions": max_decisions}
    for name, value in given.items():
        if not fits(value, int) and not (name == "max_decisions" and value is None):
            raise TypeError(f"`{name}` must be an integer; got {value!r}.")
    if episodes < 2:
        raise ValueError(f"`episodes` must be 2 or more, to have an interval; got {episodes}.")
    check_range("seed", seed, 0, MOST_SEED)
    check_range("batch", batch, 1)
    check_range("max_decisions", max_decisions, 1)
    if real_time_ms is not None and not real_time_ms > 0:
        raise ValueError(f"`real_time_ms` must be above 0; got {real_time_ms}.")


def _check_pool(facts: Sequence[Mapping[str, Any]]) -> None:
    """**Errors:** `ValueError` for agents that are no training seeds of one recipe."""
    trained = [each["training_seed"] for each in facts]
    if len(trained) < 2 or None in trained or len(set(trained)) < len(trained):
        raise ValueError(
            f"`pool` needs two agents or more, each of another training seed; got {trained}."
        )


def _arms(named: Mapping[str, Mapping[str, AbstractAgent]]) -> list[dict[str, Any]]:
    """The settings of every arm of every agent."""
    return [
        subjects.settings(name, arm, agent)
        for name, arms in named.items()
        for arm, agent in arms.items()
    ]


def _curves(named: Mapping[str, Mapping[str, AbstractAgent]]) -> dict[str, dict[str, Any]]:
    """The scores of the training of every agent that has them."""
    curves = {name: dict(arms[BASE].about.curve or {}) for name, arms in named.items()}
    return {name: curve for name, curve in curves.items() if curve}


def refuse_protocol(
    protocol: str, named: Mapping[str, Mapping[str, AbstractAgent]], real_time_ms: float | None
) -> None:
    """**Errors:** `ValueError` for an unknown protocol, or for settings that `paired-v2` does not
    support.
    """
    if protocol not in get_args(Protocol):
        raise ValueError(
            f"`protocol` must be one of {', '.join(get_args(Protocol))}; got {protocol!r}."
        )
    if protocol != windows.NAME:
        return
    if real_time_ms is not None:
        raise ValueError(
            f"Under {windows.NAME} arms begin at snapshots, without a running action: "
            f"`real_time_ms` must be None; got {real_time_ms}. Use paired-v1."
        )
    for name, arms in named.items():
        for arm, agent in arms.items():
            if (reason := windows.refusal(agent)) is not None:
                raise ValueError(
                    f"{name}, {arm} cannot begin at the base agent's snapshots: {reason}. Use "
                    "paired-v1, or leave it out."
                )


def _called(environment: Mapping[str, Any], episodes: int, seed: int, batch: int) -> str:
    """The Python call as text, for the records."""
    given = ", ".join(f"{key}={value!r}" for key, value in environment.items() if key != "id")
    where = f"dict(id={environment['id']!r}, {given})"
    return f"thinkslow.evaluate(agents, {where}, episodes={episodes}, seed={seed}, batch={batch})"


def _before(folder: Path, header: Header, resume: bool) -> Records | None:
    """The records of this evaluation so far; None if the folder holds none.

    **Errors:** `Occupied` if it holds another evaluation.
    """
    written = (records.EPISODES, records.WHOLE, "summary.json", "report.html", "strips")
    left = [name for name in written if (folder / name).exists()]
    if not is_file(folder / records.HEADER):
        if left:
            raise Occupied(
                f"{folder} holds {left[0]} of an evaluation that this version cannot continue. "
                "Give another folder."
            )
        refuse_other(folder, records.HEADER)
        return None
    found = records.read(folder)
    if differences := found.differences(header):
        raise Occupied(
            f"{folder} holds another evaluation: {'; '.join(differences)}. Give another folder, or "
            "continue with its settings."
        )
    done = f"{len(found.episodes)} of {header.expected} episodes"
    if not resume:
        raise Occupied(
            f"{folder} holds this evaluation ({done}). Give another folder, or let it resume."
        )
    if found.holds(header):
        log.info(
            "%s holds this evaluation, finished (%s), so nothing is played. Pass more "
            "`episodes=N` to continue, or another `out=DIR` to play it again.",
            folder,
            done,
        )
    else:
        log.info("%s holds %s of this evaluation: continuing with the rest.", folder, done)
    return found


def _play_all(
    folder: Path,
    header: Header,
    before: Records | None,
    named: Mapping[str, Mapping[str, AbstractAgent]],
    envs: VectorEnv,
    show: Show,
    *,
    video: bool,
) -> None:
    """Play what is missing."""
    named = {
        name: {arm: subjects.fitted(agent, envs, name=name) for arm, agent in arms.items()}
        for name, arms in named.items()
    }
    for name, arms in named.items():
        # If the environment does not wait, most frames are not seen, and none is predicted.
        waits = "real_time_ms" not in header.environment
        shown = visible(arms[BASE].model, envs.observation_space) if waits else []
        header.images[name] = shown
    if before is not None:
        header.sittings[:0] = before.header.sittings
        records.drop_torn_lines(folder)
    records.write_header(folder, header)
    sitting = Sitting(
        folder,
        header,
        envs,
        show,
        played=list(before.episodes) if before is not None else [],
        whole=list(before.whole) if before is not None else [],
        pictures={
            name: _pictures(folder, header, name, arms, envs.count) for name, arms in named.items()
        },
    )
    if header.protocol == windows.NAME:
        windows.play_all(sitting, named)
    else:
        whole.play_all(sitting, named, video=video)


def _pictures(
    folder: Path, header: Header, name: str, arms: Mapping[str, AbstractAgent], count: int
) -> Pictures:
    places = {arm["arm"]: at for at, arm in enumerate(header.arms) if arm["agent"] == name}
    return Pictures(
        folder,
        header.images[name],
        arms,
        places,
        count=count,
        seed=header.seed,
        environment_seed=episode_seed(header.seed, 0),
    )


def machine() -> str:
    """What the milliseconds were measured on: processor, usable cores, devices."""
    devices = ", ".join(sorted({device.device_kind for device in jax.local_devices()}))
    return f"{platform.machine()}, {plural(cores(), 'core')}, {devices}"
