"""The contract of a refinement, checked on any world model with one call.

The guarantees for every model, term and update are one table, and `check` runs it. If your own
model passes, it is refined like the bundled ones, and a null result does not come from a bug in
the wiring of the model.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thinkslow.objectives import (
    ELBO,
    L2,
    PIG,
    SIG,
    Ambiguity,
    Anchor,
    Entropy,
    Evidence,
    ObservedPIG,
    Prior,
    Term,
)
from thinkslow.objectives.members import Members
from thinkslow.refinement import Update
from thinkslow.testing.case import Case, Traced
from thinkslow.testing.choices import choice_entries
from thinkslow.testing.entries import Broken, Entry
from thinkslow.testing.models import agent_entries, form_entries
from thinkslow.testing.terms import term_entries
from thinkslow.testing.updates import UPDATES, Trial, trial, update_entries
from thinkslow.testing.ways import WAYS, Way, way_entries
from thinkslow.worldmodel import Observation, Policy, WorldModel

__all__ = ["TERMS", "UPDATES", "WAYS", "Broken", "Entry", "Trial", "Way", "check"]

TERMS: tuple[Term, ...] = (
    SIG(),
    SIG("barber-agakov"),
    SIG("entropies", now=True),
    PIG(),
    ObservedPIG(),
    ELBO(),
    Entropy(),
    Ambiguity(),
    Evidence(beta=0.5, free_nats=0.0, samples=2),
    Anchor(),
    Prior(),
    L2(),
)
"""All built-in terms, in the form in which they are checked."""


def check(
    model: WorldModel,
    observation: Observation,
    policy: Policy,
    *,
    action: Any,
    members: Members | None = None,
    terms: Sequence[Term] = TERMS,
    updates: Mapping[str, Update | Trial] = UPDATES,
    ways: Mapping[str, Way] = WAYS,
) -> list[Entry]:
    """Run the table on a model and return its entries; raise if an entry does not hold.

    Every term that applies to the model is refined separately with every update, and so is their
    sum. If a term or an update does not apply (`PIG` without `members`, a mirror step of a
    Gaussian), its entry says so, with the reason.

    Args:
        model: the world model to check.
        observation: an observation of the model, without a batch axis.
        policy: `policy(state, key)` returns the actions in imagined futures.
        action: an action of the model, without a batch axis.
        members: an ensemble of plausible parameters, for terms that compare them.
        terms: the terms to check, including your own.
        updates: by label, an update; or a pair, a function from a step size to an update and
            options of `refine`.
        ways: by label, ways to think that are no terms: steps of other variables, missing frames,
            windows and particles, checks and gates.

    **Cost:** compilation. All terms, and updates with equal options, share their programs: three
    programs of 2 to 5 s for each set of options (`UPDATES` has three), 10 s for the terms run
    eagerly and in float64, 2 to 5 s for each way, and 5 s for the rest. With all terms, updates and
    ways, a model of a few numbers takes a minute or two on one core, a small Dreamer three to four.
    To compile less, name fewer terms and ways, or updates with the same options.

    **Errors:** `Broken`, which names model, term, update and rule; `TypeError` for something
    else than an update.
    """
    before, trials = _dice(), {label: trial(label, one) for label, one in updates.items()}
    case = Case(model, members, observation, jnp.asarray(action), policy)
    entries = [*form_entries(case)]
    if all(entry.holds for entry in entries):  # otherwise an agent ends in errors of JAX
        entries += [*agent_entries(case), *choice_entries(case), *way_entries(case, ways)]
        entries += _of_terms(case, terms, trials)
    rule = "NumPy's global random numbers are untouched"
    entries.append(Entry(case.name, "", "", rule, _dice() == before))
    broken = [entry for entry in entries if entry.holds is False]
    if broken:
        raise Broken(
            f"{len(broken)} of {len(entries)} entries of the contract do not hold:\n"
            + "\n".join(map(str, broken))
        )
    return entries


def _of_terms(case: Case, terms: Sequence[Term], trials: Mapping[str, Trial]) -> list[Entry]:
    """Entries of every term and of their sum, alone and with every update."""
    entries: list[Entry] = []
    usable: list[Term] = []
    for term in terms:
        reason = case.refuses(term)
        if reason:
            entries.append(Entry(case.name, term.name, "", "applies to the model", None, reason))
        else:
            usable.append(term)
    if usable:
        values, at = Traced(case, usable), jax.jit(case.beliefs)(case.arrays)
        entries += term_entries(case, values, at)
        if trials:
            entries += update_entries(case, values, at, trials)
    return entries


def _dice() -> str:
    """The state of NumPy's global generator. Python's own generator is not checked, because a
    run-time type checker such as beartype draws from it.
    """
    return str([np.asarray(part).tolist() for part in np.random.get_state(legacy=True)])
