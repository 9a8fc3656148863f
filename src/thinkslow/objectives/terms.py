"""The names of what can be descended, and what each needs of a model."""

from collections.abc import Mapping

IMAGINED = {
    "sig": "state information gain: KL from the prior to the re-encoded imagined observation",
    "pig": "parameter information gain: how far plausible parameters disagree about the prior",
    "pig-observed": "the same about the imagined observation; needs a decoder with a spread",
    "elbo": "imagined evidence bound: sig plus the error of decoding, encoding, decoding",
    "entropy": "entropy of the imagined priors; needs no decoder",
    "ambiguity": "entropy of the imagined observations; needs a decoder with a spread",
}
"""Terms summed over the steps of a rollout and averaged over rollouts."""

PRESENT = {
    "evidence": "surprise at the present observation, as the encoder was trained to lower it",
    "anchor": "KL from the encoder's belief",
}
"""Terms of the present moment."""

TERMS = IMAGINED | PRESENT
"""Every term, with what it is."""

DIAGNOSTICS = {
    "barber-agakov": "lower bound of sig, E[log q(z) - log p(z)] at the latent z that was decoded",
    "self-consistency": "sig minus that bound: 0 on average if the encoder is exact",
}
"""What is reported beside `sig` and never descended. Both speak of sampled latents; under the
`mode` or the `soft` latent they are those of that one value."""

NEED_DECODER = ("sig", "elbo", "evidence", "ambiguity", "pig-observed")
NEED_MEMBERS = ("pig", "pig-observed")
NEED_SPREAD = ("ambiguity", "pig-observed")


def check_terms(terms: Mapping) -> None:
    """**Errors:** `ValueError` for a name that is no term."""
    for name in terms:
        if name not in TERMS:
            raise ValueError(f"A term must be one of {', '.join(TERMS)}; got {name!r}.")
