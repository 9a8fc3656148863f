"""What the heads of an agent say of a state, by the names of the golden files."""

from typing import Any

import jax
import jax.numpy as jnp

from thinkslow.distributions import Categorical
from thinkslow.heads import SymlogSquared
from thinkslow.worldmodel import State


def described(model: Any, state: State, prior: Any, slow_value: jax.Array) -> dict[str, jax.Array]:
    """What every head says of one state, and the slow copy of the critic."""
    reward, value, going_on = model.reward(state), model.value(state), model.continuation(state)
    actors = list(model.actor(state).values())
    each = [_policy(actor) for actor in actors]
    policy = {
        name: jnp.concatenate([parts[name] for parts in each if name in parts], -1)
        for name in dict.fromkeys(name for parts in each for name in parts)
    }
    reconstruction = {}
    for name, head in model.decode(state).items():
        vector = isinstance(head, SymlogSquared)
        reconstruction[f"recon_{name}"] = head.symlog_mean if vector else head.mode()
        if vector:
            reconstruction[f"recon_symexp_{name}"] = head.mode()
    return {
        "deter": state.memory,
        "stoch": state.latent,
        "reward": reward.mean(),
        "reward_logits": reward.logits,
        "value": value.mean(),
        "value_logits": value.logits,
        "slow_value": slow_value,
        "cont_logit": going_on.logit,
        "cont_prob": going_on.prob(),
        "cont_mode": going_on.mode(),
        "policy_entropy": sum((actor.entropy() for actor in actors), jnp.zeros(())),
        "feat": jnp.concatenate([state.latent.ravel(), state.memory]),  # as PyTorch projects join
        **policy,
        **reconstruction,
        **latent("prior", prior),
    }


def _policy(actor: Any) -> dict[str, jax.Array]:
    if not isinstance(actor, Categorical):
        return {"policy_mean": actor.mean, "policy_std": actor.scale}
    logits = actor.log_probs() if actor.mix else actor.logits
    return {
        "policy_logits": logits,
        "policy_logits_raw": actor.logits,
        "policy_prob": actor.probs(),
    }


def latent(name: str, belief: Any) -> dict[str, jax.Array]:
    """A belief over the latent."""
    return {
        f"{name}_logit": belief.logits,
        f"{name}_prob": belief.probs(),
        f"{name}_entropy": belief.entropy(),
    }
