"""A bank on disk: its settings, its moments in files that never change, and an index of them.

    bank.json             what is played, and under which settings
    index.json            the valid files, with their hashes
    moments/00003-01.npz  moments of one round of one block of episodes

A file of moments is complete on the disk before the index names it, so a kill at any instant loses
at most one round. One writer at a time is assumed (see `storage.lock`).
"""

import dataclasses
import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from thinkslow.evaluation.facts import AgentFacts, EnvironmentFacts
from thinkslow.storage import atomic, headers
from thinkslow.storage.faults import Damaged, Missing
from thinkslow.storage.paths import expanded
from thinkslow.storage.reading import is_file, read_file

FORMAT = 1
HEADER, INDEX, FOLDER = "bank.json", "index.json", "moments"
ALIVE, TERMINAL, CUT = range(3)
"""How a future ended: it did not end, the task ended, or the episode ended for another reason."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """The settings that a bank was filled with."""

    environment: EnvironmentFacts
    agent: AgentFacts
    seed: int
    every: int
    """Decisions between two moments of an episode."""
    futures: int
    """Number of play-outs of each action."""
    horizon: int
    """Number of decisions in each play-out."""
    batch: int
    """Number of environments in parallel."""
    candidates: int
    """Number of actions that are tried."""
    enumerated: bool
    """Whether these are all actions; otherwise they are drawn from the policy."""
    versions: dict[str, str]

    def differences(self, other: "Header", *, full: bool = False) -> list[str]:
        """The settings that differ and must be equal to continue, as text. Of a full bank, to which
        nothing is added, versions may be others.
        """
        ours, theirs = (
            dataclasses.replace(one, agent={"weights": one.agent.get("weights")})
            for one in (self, other)
        )
        return headers.differences(ours, theirs, apart=("versions",) if full else ())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moments:
    """Some moments; the leading axis of every array."""

    episode: Int[np.ndarray, " moments"]
    """The episode of each moment: the unit of all statistics."""
    environment_seed: Int[np.ndarray, " moments"]
    decision: Int[np.ndarray, " moments"]
    """Number of decisions before the moment in its episode."""
    is_first: Bool[np.ndarray, " moments"]
    observation: dict[str, Shaped[np.ndarray, "moments ..."]]
    carry: list[Shaped[np.ndarray, "moments ..."]]
    """Leaves of the base agent's carry there."""
    actions: Float[np.ndarray, "moments actions action"]
    """Vectors of the actions that were tried."""
    rewards: Float[np.ndarray, "moments actions futures horizon"]
    ended: UInt8[np.ndarray, "moments actions futures"]
    value: Float[np.ndarray, " moments"]
    """The critic's value of the moment; NaN without a critic."""
    value_end: Float[np.ndarray, "moments actions futures"]
    """The critic's value at the end of each future; NaN if the episode was cut."""

    def __len__(self) -> int:
        return len(self.episode)

    def returns(self, discount: float) -> Float[np.ndarray, "moments actions futures"]:
        """Discounted sums of the rewards of each future."""
        weights = discount ** np.arange(self.rewards.shape[-1])
        return (self.rewards * weights).sum(-1)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays to store."""
        out: dict[str, np.ndarray] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Mapping):
                out |= {f"{field.name}/{name}": array for name, array in value.items()}
            elif isinstance(value, list):
                out |= {f"{field.name}/{number}": array for number, array in enumerate(value)}
            else:
                out[field.name] = value
        return out

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Moments":
        """**Errors:** `KeyError` for an array that is missing."""
        parts = {"observation": {}, "carry": {}}
        for name in arrays:
            part, slash, rest = name.partition("/")
            if slash:
                parts[part][rest] = arrays[name]
        carry = [parts["carry"][str(number)] for number in range(len(parts["carry"]))]
        plain = [f.name for f in dataclasses.fields(cls) if f.name not in parts]
        return cls(
            observation=parts["observation"], carry=carry, **{name: arrays[name] for name in plain}
        )


class Bank:
    """A bank, finished or not."""

    def __init__(self, folder: Path, header: Header, index: dict[str, dict[str, Any]]):
        self.folder, self.header, self.index = folder, header, index

    def __len__(self) -> int:
        """Number of moments."""
        return sum(entry["moments"] for entry in self.index.values())

    def parts(self) -> Iterator[Moments]:
        """The moments, one file after the other, so memory does not grow with the bank. Rounds of
        which no moment was kept are left out.

        **Errors:** `Damaged` for a file that is not what was written.
        """
        for name in sorted(self.index):
            if self.index[name]["moments"]:
                yield self.part(name)

    def part(self, name: str) -> Moments:
        path = _file(self.folder, name)
        try:
            content = read_file(path)
        except FileNotFoundError:
            raise Damaged(f"{path} is gone. {_AGAIN}") from None
        if hashlib.sha256(content).hexdigest() != self.index[name]["sha256"]:
            raise Damaged(f"{path} is not what was written (its hash differs). {_AGAIN}")
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return Moments.from_arrays(dict(arrays))
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            raise Damaged(f"{path} holds no moments ({error}). {_AGAIN}") from error

    def add(self, name: str, moments: Moments) -> None:
        """Store a round of a block."""
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **moments.arrays())  # pyright: ignore[reportArgumentType]
        data = content.getvalue()
        atomic.write_bytes(_file(self.folder, name), [data])
        self.index[name] = {"moments": len(moments), "sha256": hashlib.sha256(data).hexdigest()}
        headers.write_json(self.folder / INDEX, {"files": self.index}, format=FORMAT)


_AGAIN = "Fill the bank again, in another folder."


def _file(folder: Path, name: str) -> Path:
    return folder / FOLDER / f"{name}.npz"


def begin(folder: Path, header: Header) -> Bank:
    """An empty bank."""
    headers.write(folder / HEADER, header, format=FORMAT)
    headers.write_json(folder / INDEX, {"files": {}}, format=FORMAT)
    return Bank(folder, header, {})


def is_there(folder: Path) -> bool:
    """Whether a folder holds a bank."""
    return is_file(folder / HEADER)


def read(folder: str | Path) -> Bank:
    """A complete or partly filled bank.

    **Errors:** `Missing` if there is none; `Damaged` for files that are not what was written, or
    of another version.
    """
    folder = expanded(folder)
    if not is_there(folder):
        raise Missing(f"{folder} holds no bank. Fill one: thinkslow bank AGENT --out {folder}")
    header = headers.read(folder / HEADER, Header, format=FORMAT, again=_AGAIN)
    index: dict[str, dict[str, Any]] = {}
    if is_file(folder / INDEX):
        index = headers.read_json(folder / INDEX, format=FORMAT, again=_AGAIN).get("files", {})
    bad = not isinstance(index, dict) or not all(
        isinstance(one, dict) and type(one.get("moments")) is int and "sha256" in one
        for one in index.values()
    )
    if bad:
        raise Damaged(f"{folder / INDEX} is not the index of a bank. {_AGAIN}")
    return Bank(folder, header, index)


def leaves(carry: Any) -> list[np.ndarray]:
    """The arrays of a carry, to be stored."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(carry)]


def carried(structure: Any, arrays: list[np.ndarray]) -> Any:
    """The carry of an agent, from stored arrays.

    Args:
        structure: a carry of that agent, such as `agent.start(1)`.
        arrays: from `leaves`.

    **Errors:** `ValueError` if the agent's carry is different.
    """
    given, tree = jax.tree.flatten(structure)
    shapes = [leaf.shape[1:] for leaf in given], [array.shape[1:] for array in arrays]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "the bank holds the carry of the base agent, and this agent's carry is different (more "
            "of the past, or particles)"
        )
    return jax.tree.unflatten(tree, map(jnp.asarray, arrays))
