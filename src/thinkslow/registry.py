"""Names for the command line: what may be written where an object is meant.

In Python, objects are passed; nothing there needs a name. A command line has only texts, so each
kind of object has a table from name to what makes it. Anything may be added from outside, by
`register` in a module that is named with `--import`, or by an entry point of an installed
package, whose group begins with `thinkslow` and ends in the kind:

    [project.entry-points."thinkslow.term"]
    reward = "mypackage.terms:Reward"

A name may carry arguments: `best-of:8`, `langevin:step_size=10:temperature=0.5`. This module
imports nothing of the package until an object is made.
"""

import dataclasses
import difflib
import functools
import importlib
import inspect
import os
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

KINDS = {
    "term": "what to descend",
    "update": "where a step goes",
    "readout": "how a latent is taken from a belief",
    "score": "what a gate goes by",
    "choice": "how an action is chosen",
    "check": "how a frame is checked before it is believed",
    "members": "where plausible parameters come from",
    "arm": "a way to think, whole",
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One name of a kind."""

    make: Callable[..., Any] | str
    """What makes the object; or where that is, as `module:attribute`."""
    about: str
    """What it is, in a line."""

    def load(self) -> Callable[..., Any]:
        if not isinstance(self.make, str):
            return self.make
        module, _, attribute = self.make.partition(":")
        return getattr(importlib.import_module(module), attribute)


_IMAGINED, _PRESENT = "thinkslow.objectives.imagined", "thinkslow.objectives.present"
_UPDATES, _READOUTS = "thinkslow.refinement.updates", "thinkslow.readouts"
_CHECKS = "thinkslow.agent.checks"
_SCORES, _MEMBERS = "thinkslow.agent.scores", "thinkslow.objectives.members"
_VALUES = "thinkslow.agent.values"

_TABLE: dict[str, dict[str, Entry]] = {
    "term": {
        "sig": Entry(
            f"{_IMAGINED}:SIG",
            "state information gain: KL from the prior to the re-encoded imagined observation",
        ),
        "pig": Entry(
            f"{_IMAGINED}:PIG",
            "parameter information gain: how far plausible parameters disagree about the prior",
        ),
        "pig-observed": Entry(
            f"{_IMAGINED}:ObservedPIG",
            "the same about the imagined observation; needs a decoder with a spread",
        ),
        "elbo": Entry(
            f"{_IMAGINED}:ELBO",
            "imagined evidence bound: sig plus the error of decoding, encoding, decoding",
        ),
        "entropy": Entry(
            f"{_IMAGINED}:Entropy", "entropy of the imagined priors; needs no decoder"
        ),
        "ambiguity": Entry(
            f"{_IMAGINED}:Ambiguity",
            "entropy of the imagined observations; needs a decoder with a spread",
        ),
        "evidence": Entry(
            f"{_PRESENT}:Evidence",
            "surprise at the present observation, as the encoder was trained to lower it",
        ),
        "anchor": Entry(f"{_PRESENT}:Anchor", "KL from the encoder's belief"),
        "prior": Entry(f"{_PRESENT}:Prior", "KL to the prior"),
        "l2": Entry(f"{_PRESENT}:L2", "squared distance of the latent from its start, halved"),
    },
    "update": {
        "gradient": Entry(f"{_UPDATES}:Gradient", "plain gradient descent"),
        "adam": Entry(f"{_UPDATES}:adam", "Adam"),
        "mirror": Entry(f"{_UPDATES}:Mirror", "mirror descent: the natural gradient"),
        "langevin": Entry(f"{_UPDATES}:Langevin", "a gradient step with noise"),
        "random": Entry(f"{_UPDATES}:Random", "a random direction: the control"),
    },
    "readout": {
        "sample": Entry(f"{_READOUTS}:Sample", "one sample, straight-through"),
        "mode": Entry(f"{_READOUTS}:Mode", "the likeliest latent, straight-through"),
        "soft": Entry(f"{_READOUTS}:Soft", "the expectation"),
        "gumbel": Entry(f"{_READOUTS}:Gumbel", "a relaxed sample"),
        "reinforce": Entry(f"{_READOUTS}:Reinforce", "samples under the score estimator"),
        "softened": Entry(
            f"{_READOUTS}:Softened", "control: a sample moved towards the expectation by a length"
        ),
        "best-of": Entry(f"{_READOUTS}:BestOf", "the best of N samples by reconstruction"),
    },
    "score": {
        "surprise": Entry(f"{_SCORES}:Surprise", "Bayesian surprise, KL(posterior || prior), nats"),
        "entropy": Entry(f"{_SCORES}:PosteriorEntropy", "entropy of the posterior, nats"),
        "novelty": Entry(
            f"{_SCORES}:Novelty", "nats by which the history predicts worse than none"
        ),
        "sensitivity": Entry(
            f"{_SCORES}:Sensitivity", "how often two latents choose different actions"
        ),
        "disagreement": Entry(
            f"{_SCORES}:Disagreement",
            "nats by which plausible parameters differ on the prior; needs an ensemble",
        ),
        "policy-information": Entry(
            f"{_SCORES}:PolicyInformation", "nats that the latent tells of the action"
        ),
        "voc": Entry(
            f"{_SCORES}:ValueOfComputation",
            "what finding out the better action is expected to gain; needs a critic",
        ),
        "improvement": Entry(
            f"{_SCORES}:Improvement",
            "imagined gain of the action by value over the policy's; needs a critic",
        ),
        "random": Entry(f"{_SCORES}:Chance", "a uniform number: the control of every gate"),
    },
    "check": {
        "robust": Entry(
            f"{_CHECKS}:Robust",
            "frames that no latent explains are mended, or the prior stands in for them",
        ),
        "masked": Entry(
            f"{_CHECKS}:Masked", "control: what is exactly black is replaced in the same way"
        ),
        "wiser": Entry(
            f"{_CHECKS}:Wiser",
            "control: frames that are reconstructed badly without history are rejected",
        ),
        "random": Entry(
            f"{_CHECKS}:RandomRejection", "control: as many rejected as are suspicious, at random"
        ),
        "median": Entry(f"{_CHECKS}:Median", "control: a 3x3 median filter of every image"),
        "moments": Entry(
            f"{_CHECKS}:Moments",
            "control: each channel with the moments of clean frames",
        ),
    },
    "members": {
        "noise": Entry(f"{_MEMBERS}:Noise", "Gaussian noise on the prior's last layer"),
        "dropout": Entry(f"{_MEMBERS}:Dropout", "dropout masks on the prior's last layer"),
    },
    "choice": {
        "values": Entry(f"{_VALUES}:Values", "the policy, tilted by imagined advantages"),
        "ascent": Entry(
            "thinkslow.agent.ascent:Ascent",
            "the best of imagined sequences of continuous actions, improved by ascent",
        ),
        "tempered": Entry(f"{_VALUES}:Tempered", "control: the policy sharpened as far by itself"),
        "shuffled": Entry(
            f"{_VALUES}:Shuffled", "control: the same advantages, each of another action"
        ),
        "likeliest": Entry(
            "thinkslow.agent.choices:Likeliest", "control: the policy's likeliest action"
        ),
    },
    "arm": {},
}


def register(kind: str, name: str, make: Callable[..., Any], about: str = "") -> None:
    """Give an object of your own a name on the command line.

    Args:
        kind: one of `KINDS`.
        name: what to write; one that is taken is refused. A file that is run again, or a cell of a
            notebook, gives its own names anew.
        make: a class or a function that makes the object; its parameters may be given after
            the name.
        about: what it is, in a line; by default the first line of its documentation.

    **Errors:** `ValueError` for an unknown kind or a name that something else has.
    """
    table = _table(kind)
    if name in table and not redefines(make, table[name].make):
        raise ValueError(f"{kind} {name!r} is taken. Choose another name.")
    if any(letter in name for letter in ":*,= ") or not name:
        raise ValueError(
            f"A name must have letters and hyphens, without ':', '*', ',', '=' or spaces; got "
            f"{name!r}."
        )
    first_line = (inspect.getdoc(make) or "").partition("\n")[0]
    table[name] = Entry(make, about or first_line)


def redefines(new: Callable[..., Any] | str, old: Callable[..., Any] | str) -> bool:
    """Whether a class or function is another's definition, run again: of the same name in the
    same module or file."""
    return bool(_homes(new) & _homes(old))


def _homes(make: Callable[..., Any] | str) -> set[object]:
    """What tells a definition that is run again from another: its name with its module, and with
    the file of its code."""
    own = getattr(make, "__qualname__", None)
    if own is None or "<lambda>" in own:
        return {make}
    inside = vars(make).values() if isinstance(make, type) else [make]
    codes = (getattr(getattr(one, "fget", one), "__code__", None) for one in inside)
    # Without what a decorator such as `dataclass` put in, whose code is elsewhere.
    written = [code for code in codes if code and code.co_qualname.startswith(own)]
    files = {os.path.abspath(code.co_filename) for code in written}
    return {(home, own) for home in {make.__module__, *files}}


def entries(kind: str) -> dict[str, Entry]:
    """Every name of a kind."""
    return dict(_table(kind))


def make(kind: str, spec: str) -> Any:
    """The object of a text such as `sig`, `best-of:8` or `evidence:beta=1:samples=4`.

    **Errors:** `ValueError` for an unknown name, with the nearest, or for arguments that it does
    not take.

    >>> make("readout", "best-of:4").count
    4
    """
    _, *arguments = spec.split(":")
    function = check(kind, spec).load()
    positional = [_value(text) for text in arguments if "=" not in text]
    named = dict(text.split("=", 1) for text in arguments if "=" in text)
    given = {key.replace("-", "_"): _value(text) for key, text in named.items()}
    bound = taken(function, f"{kind} {spec.partition(':')[0]}", *positional, **given)
    for name, value in bound.arguments.items():
        # A float may be changed without compiling again.
        if type(value) is int and "float" in str(bound.signature.parameters[name].annotation):
            bound.arguments[name] = float(value)
    return function(*bound.args, **bound.kwargs)


def taken(
    function: Callable[..., Any], what: str, *positional: Any, **given: Any
) -> inspect.BoundArguments:
    """Arguments that follow a name, bound to the parameters of the function that it stands for.

    **Errors:** `ValueError` for an argument that it does not take, with the nearest name.
    """
    signature = inspect.signature(function)
    open_ended = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
    for name in given:
        if name not in signature.parameters and not open_ended:
            raise ValueError(
                f"The {what} has no argument {name!r}{nearest(name, signature.parameters)}"
            )
    try:
        return signature.bind(*positional, **given)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "no arguments"
        raise ValueError(f"The {what}: {error}. It takes {takes}.") from None


def check(kind: str, spec: str) -> Entry:
    """The entry that a text names; its arguments are not looked at.

    **Errors:** `ValueError` for an unknown name, with the nearest.
    """
    name, table = spec.partition(":")[0], _table(kind)
    if name not in table:
        what = {"score": "gate", "members": "source of plausible parameters"}.get(kind, kind)
        raise ValueError(f"There is no {what} {name!r}{nearest(name, table)}")
    return table[name]


def weights(text: str) -> list[tuple[str, float]]:
    """The parts of a text such as `sig,0.5*evidence:beta=1`, each with its weight.

    **Errors:** `ValueError` for a weight that is no number, or no parts.
    """
    out = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        before, star, spec = part.rpartition("*")
        try:
            out.append((spec.strip(), float(before) if star else 1.0))
        except ValueError:
            raise ValueError(f"A weight must be a number; got {before!r} in {text!r}.") from None
    if not out:
        raise ValueError(f"Name one at least, such as sig,0.5*evidence; got {text!r}.")
    return out


def weighted(kind: str, text: str) -> tuple[tuple[Any, float], ...]:
    """Several objects with weights, from `sig,0.5*evidence:beta=1`; one alone weighs 1.

    **Errors:** `ValueError`: those of `make` and of `weights`.

    >>> [(term.name, weight) for term, weight in weighted("term", "sig,0.5*evidence")]
    [('sig', 1.0), ('evidence', 0.5)]
    """
    return tuple((make(kind, spec), weight) for spec, weight in weights(text))


def nearest(name: str, known: Any) -> str:
    """The end of a sentence that says there is no such name."""
    names = sorted(set(known))
    if near := difflib.get_close_matches(name, names, 3):
        return f". Did you mean {either(near)}?"
    return f". Available: {', '.join(names)}." if names else "."


def either(names: Sequence[str]) -> str:
    """Alternatives as a sentence has them.

    >>> either(["a", "b", "c"])
    'a, b or c'
    """
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _table(kind: str) -> dict[str, Entry]:
    if kind not in KINDS:
        raise ValueError(f"A kind must be one of {', '.join(KINDS)}; got {kind!r}.")
    if kind == "arm":
        for module in ("presets", "value_presets"):  # which register them
            importlib.import_module(f"thinkslow.agent.{module}")
    _from_packages(kind)
    return _TABLE[kind]


@functools.cache
def _from_packages(kind: str) -> None:
    """Names that installed packages declare."""
    for found in metadata.entry_points(group=f"thinkslow.{kind}"):
        _TABLE[kind].setdefault(found.name, Entry(found.value, f"from {found.module}"))


def _value(text: str) -> Any:
    """A number, a truth value, or the text itself."""
    known = {"true": True, "false": False, "none": None}
    if text.lower() in known:
        return known[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
