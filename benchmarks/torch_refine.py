# pyright: reportMissingImports=false
"""The state information gain and its gradient by the belief, in plain PyTorch.

    python benchmarks/torch_refine.py CASE.npz        # in an environment with PyTorch and NumPy

Written for benchmarks/peers.py, which makes the case (weights by name, a moment, the loss and
gradient that JAX finds), to say what the same objective costs elsewhere: preset `tiny`, latents
and actions taken by their mode, straight-through, eager and compiled. Prints one JSON object:
milliseconds for loss and gradient, and how far both are from JAX's.
"""

import json
import sys
import time

import numpy as np
import torch
from torch.nn.functional import one_hot, silu

MIX, PATCH = 0.01, 8
Weights = dict[str, torch.Tensor]


def dense(w: Weights, name: str, x: torch.Tensor, norm: str | None = None) -> torch.Tensor:
    """A linear layer, its RMS norm and SiLU."""
    x = x @ w[f"{name}/kernel"] + w[f"{name}/bias"]
    size = torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-4)
    return silu(x * size * w[f"{norm or name + 'norm'}/scale"])


def linear(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]


def blocks(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    kernel = w[f"{name}/kernel"]
    x = torch.einsum("bgi,gio->bgo", x.unflatten(-1, (kernel.shape[0], -1)), kernel)
    return x.flatten(1) + w[f"{name}/bias"]


def probabilities(logits: torch.Tensor, mix: float = MIX) -> torch.Tensor:
    return (1 - mix) * logits.softmax(-1) + mix / logits.shape[-1]


def mode(logits: torch.Tensor, mix: float = MIX) -> torch.Tensor:
    probs = probabilities(logits, mix)
    return one_hot(logits.argmax(-1), logits.shape[-1]) + (probs - probs.detach())


def core(w: Weights, deter: torch.Tensor, latent: torch.Tensor, action: torch.Tensor):
    groups = w["dyn/dyngru/kernel"].shape[0]
    parts = (deter, latent.flatten(1), action)
    inputs = torch.cat([dense(w, f"dyn/dynin{i}", part) for i, part in enumerate(parts)], -1)
    shared = inputs[:, None].expand(-1, groups, -1)
    x = torch.cat([deter.unflatten(-1, (groups, -1)), shared], -1).flatten(1)
    x = blocks(w, "dyn/dynhid0", x)
    size = torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-4)
    x = silu(x * size * w["dyn/dynhid0norm/scale"])
    gates = blocks(w, "dyn/dyngru", x).unflatten(-1, (groups, 3, -1))
    reset, candidate, update = (gates[:, :, index].flatten(1) for index in range(3))
    update = (update - 1).sigmoid()
    return update * (reset.sigmoid() * candidate).tanh() + (1 - update) * deter


def cells(x: torch.Tensor) -> torch.Tensor:
    """An image to rows of pixels, one row a patch."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // PATCH, PATCH, width // PATCH, PATCH, channels)
    return x.transpose(2, 3).reshape(batch, -1, PATCH * PATCH * channels)


def image(x: torch.Tensor, side: int) -> torch.Tensor:
    """The inverse of `cells`."""
    x = x.reshape(len(x), side // PATCH, side // PATCH, PATCH, PATCH, -1)
    return x.transpose(2, 3).reshape(len(x), side, side, -1)


def objective(w: Weights, deter: torch.Tensor, logits: torch.Tensor, horizon: int, side: int):
    """Summed over the imagined steps, and over the batch."""
    shape, total = logits.shape, torch.zeros(())
    latent = mode(logits)
    for _ in range(horizon):
        x = torch.cat([deter, latent.flatten(1)], -1)
        for index in range(2):
            x = dense(w, f"pol/mlp/linear{index}", x, f"pol/mlp/norm{index}")
        action = mode(linear(w, "pol/head/action/logits", x), 0.0)
        deter = core(w, deter, latent, action)
        x = dense(w, "dyn/prior1", dense(w, "dyn/prior0", deter))
        prior = linear(w, "dyn/priorlogit", x).reshape(shape)
        latent = mode(prior)
        x = dense(w, "dec/image0", torch.cat([latent.flatten(1), deter], -1))
        x = linear(w, "dec/image1", x).unflatten(-1, (-1, w["dec/image1norm/scale"].shape[0]))
        size = torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-4)
        x = linear(w, "dec/patch", silu(x * size * w["dec/image1norm/scale"]))
        pixels = cells(image(x, side).sigmoid() - 0.5)
        tokens = dense(w, "enc/image", dense(w, "enc/patch", pixels).flatten(1))
        x = dense(w, "dyn/obs0", torch.cat([deter, tokens], -1))
        again = probabilities(linear(w, "dyn/obslogit", x).reshape(shape))
        total = total + (again * (again.log() - probabilities(prior).log())).sum()
    return total


def main(path: str) -> None:
    torch.set_num_threads(1)
    case = {name: torch.tensor(value) for name, value in np.load(path).items()}
    horizon, side = int(case["case/horizon"]), int(case["case/side"])
    found = {"torch": torch.__version__}
    for how in ("eager", "compiled"):
        function = objective if how == "eager" else torch.compile(objective)

        def both(function=function) -> tuple[torch.Tensor, torch.Tensor]:
            logits = case["case/logits"].requires_grad_(True)
            loss = function(case, case["case/memory"], logits, horizon, side)
            return loss.detach(), *torch.autograd.grad(loss, logits)

        try:
            begun = time.perf_counter()
            loss, gradient = both()
            found[f"{how}_first_s"] = time.perf_counter() - begun
        except Exception as error:  # no compiler, say: the eager form is still an answer
            found[how] = f"{type(error).__name__}: {error}"[:200]
            continue
        scale = case["case/gradient"].abs().max()
        found[f"{how}_loss_error"] = float((loss / case["case/loss"] - 1).abs())
        found[f"{how}_gradient_error"] = float(
            (gradient - case["case/gradient"]).abs().max() / scale
        )
        times = []
        for _ in range(3 + 30):
            begun = time.perf_counter()
            both()
            times.append(1e3 * (time.perf_counter() - begun))
        found[f"{how}_ms"] = np.percentile(times[3:], [10, 50, 90]).tolist()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
