"""The contract of a refinement, checked on any world model with one call.

What this library promises of every model, term and update is one table; `check` runs it. A
model of one's own that passes is refined as the bundled ones are, and a null result is then the
world's answer, not a bug of the model's wiring.
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
from thinkslow.testing.choices import choice_entries
from thinkslow.testing.entries import Broken, Entry
from thinkslow.testing.models import model_entries
from thinkslow.testing.moment import Moment, Values
from thinkslow.testing.terms import term_entries
from thinkslow.testing.updates import UPDATES, Trial, update_entries
from thinkslow.worldmodel import Observation, Policy, WorldModel

__all__ = ["TERMS", "UPDATES", "Broken", "Entry", "Trial", "check"]

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
"""Every term of ours, as it is checked."""


def check(
    model: WorldModel,
    observation: Observation,
    policy: Policy,
    *,
    action: Any,
    members: Members | None = None,
    terms: Sequence[Term] = TERMS,
    updates: Mapping[str, Trial] = UPDATES,
) -> list[Entry]:
    """Run the table on a model; returns its entries, or raises with those that do not hold.

    Every term that the model can be asked for is refined by itself under every update, and so is
    their sum. A term or an update that refuses the model (`PIG` without `members`, a mirror step
    of a Gaussian) is an entry that is not applicable, with the reason.

    Args:
        model: the world model to check.
        observation: one that the model accepts, without a batch axis.
        policy: `policy(state, key)` gives the actions in imagined futures.
        action: one that the model accepts, without a batch axis.
        members: an ensemble of plausible parameters, for terms that compare them.
        terms: the terms to check; your own too.
        updates: by label, a pair: what makes an update of a step size, and options of `refine`.

    **Cost:** compilation. Updates of equal options share their programs, and all terms do: three
    programs of 2 to 5 s for each set of options (`UPDATES` has three), 10 s for the terms run
    eagerly and in float64, 5 s besides. A model of a few numbers takes about a minute of one
    core, a small Dreamer two to three, with all its terms and updates. Name fewer terms, or
    updates of the same options, to compile less.

    **Errors:** `Broken`, naming model, term, update and rule.
    """
    before = _dice()
    moment = Moment(model, members, observation, jnp.asarray(action), policy)
    entries = [*model_entries(moment), *choice_entries(moment)]
    usable: list[Term] = []
    for term in terms:
        reason = moment.refuses(term)
        if reason:
            entries.append(Entry(moment.name, term.name, "", "applies to the model", None, reason))
        else:
            usable.append(term)
    if usable:
        values, at = Values(moment, usable), jax.jit(moment.beliefs)(model)
        entries += term_entries(moment, values, at)
        if updates:
            entries += update_entries(moment, values, at, updates)
    rule = "NumPy's global random numbers are untouched"
    entries.append(Entry(moment.name, "", "", rule, _dice() == before))
    broken = [entry for entry in entries if entry.holds is False]
    if broken:
        raise Broken(
            f"{len(broken)} of {len(entries)} entries of the contract do not hold:\n"
            + "\n".join(map(str, broken))
        )
    return entries


def _dice() -> str:
    """The state of NumPy's generator that everybody shares. Python's own is not looked at: a
    run-time type checker of the caller's, such as beartype, draws from it."""
    return str([np.asarray(part).tolist() for part in np.random.get_state(legacy=True)])
