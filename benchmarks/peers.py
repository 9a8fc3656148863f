"""The same work in other code: an update of sheeprl's DreamerV3, and refinement in PyTorch.

    uv run python benchmarks/peers.py --index https://download.pytorch.org/whl/cpu
    uv run python benchmarks/peers.py --python PATH      # an environment that has the peers

**Claim.** None of its own: docs/performance.md quotes the table, with the machine.

**Method.** Each peer runs in a process of its own, one thread, on the CPU it is given: installed
for the occasion by `uv run --no-project` (never into this project), or with `--python`. JAX runs
on one core too: start this under `taskset -c 0`. An update is of 16 sequences of 64 steps of
64x64 images at the sizes nearest to `size1m`.
Refinement is loss and gradient of the state information gain (preset `tiny`, 8 imagined steps,
latents and actions by their mode) on the same weights and moment, ours compiled by JAX, the
peer's `benchmarks/torch_refine.py`, whose loss and gradient must agree to 1e-4. Median of 30 calls
after 3, except updates: 5 after 2. Nobody else publishes a refinement of the belief to compare
with. torchrl 0.14 has the losses of DreamerV3 and no script that trains one as a whole.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from update import measure

from thinkslow.agent.blocks import in_blocks
from thinkslow.dreamer.config import model_preset, train_preset
from thinkslow.dreamer.model import Dreamer
from thinkslow.evaluation.protocol import machine
from thinkslow.objectives import SIG, Objective, lookahead
from thinkslow.readouts import Mode
from thinkslow.saved.provenance import revision
from thinkslow.spaces import Space
from thinkslow.weights import named
from thinkslow.worldmodel import Moment

HERE = Path(__file__).parent
SIDE, HORIZON, TOLERANCE = 64, 8, 1e-4
PEERS = {"sheeprl_update.py": ["sheeprl==0.8.*"], "torch_refine.py": ["torch", "numpy"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", type=Path, help="an interpreter that has the peers")
    parser.add_argument("--index", help="where to find PyTorch for CPUs")
    parser.add_argument("--skip-updates", action="store_true", help="refinement only")
    given = parser.parse_args()
    run = partial(peer, given.python, given.index)
    print("| work | code | batch | ms | p10-p90 | first call, s |\n|---|---|---|---|---|---|")
    for batch in (1, 64):
        with tempfile.TemporaryDirectory() as folder:
            case = Path(folder) / "case.npz"
            ours = refinement(batch, case)
            row("loss and gradient", "thinkslow", batch, ours["ms"], ours["first_s"])
            theirs = run("torch_refine.py", str(case))
        for how in ("eager", "compiled"):
            if f"{how}_ms" not in theirs:
                print(f"PyTorch {how} failed: {theirs[how]}")
                continue
            for error in ("loss", "gradient"):
                if not theirs[f"{how}_{error}_error"] < TOLERANCE:
                    raise SystemExit(
                        f"The {error} must agree to {TOLERANCE}; {how} PyTorch differs by "
                        f"{theirs[f'{how}_{error}_error']:.1e}: the two do not compute the same."
                    )
            name = f"PyTorch {theirs['torch']} {how}"
            row("loss and gradient", name, batch, theirs[f"{how}_ms"], theirs[f"{how}_first_s"])
    if not given.skip_updates:
        ours = measure(model_preset("size1m"), train_preset("size1m"), repeats=5)
        for name, found in (("thinkslow", ours), ("sheeprl", run("sheeprl_update.py"))):
            times = [1e3 * found[key] for key in ("p10_s", "update_s", "p90_s")]
            work = f"update, {found['parameters']:,} parameters"
            row(work, name, "16 x 64", times, found.get("compile_s"))
    print(f"\n{machine()}, jax {jax.__version__}, revision {revision()}")


def row(work: str, code: str, batch: Any, ms: list[float], first_s: float | None) -> None:
    first = "-" if first_s is None else f"{first_s:.1f}"
    print(f"| {work} | {code} | {batch} | {ms[1]:.2f} | {ms[0]:.2f}-{ms[2]:.2f} | {first} |")


def peer(python: Path | None, index: str | None, script: str, *arguments: str) -> dict[str, Any]:
    """What a peer's script prints.

    **Errors:** `SystemExit` with what it printed instead, if it fails.
    """
    command = [str(python)]
    if python is None:
        command = ["uv", "run", "--no-project", "--isolated"]
        command += ["--extra-index-url", index] if index else []
        command += [part for name in PEERS[script] for part in ("--with", name)] + ["python"]
    done = subprocess.run(
        [*command, str(HERE / script), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} {script} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def objective_of(
    model: Dreamer, memory: Any, prior: Any, posterior: Any, observation: dict
) -> Objective:
    """The state information gain of futures whose latents and actions are modes."""
    moment = Moment(memory, prior, posterior, jnp.ones((), bool))
    return lookahead(
        model, model.greedy, moment, observation, {SIG(): 1.0}, horizon=HORIZON, latent=Mode()
    )


def refinement(batch: int, case: Path) -> dict[str, Any]:
    """Writes a moment with what JAX makes of it; returns how long that takes."""
    model = Dreamer(
        {"image": Space((SIDE, SIDE, 3), "uint8")},
        {"action": Space((), "int32", 3)},
        model_preset("tiny"),
        key=jr.key(0),
    )
    images = np.random.default_rng(0).integers(0, 255, (batch, SIDE, SIDE, 3), dtype=np.uint8)
    observation = {"image": jnp.asarray(images)}

    @jax.jit
    @jax.vmap
    def look(observation: dict) -> tuple[Any, Any, Any]:
        memory, prior = model.predict(model.initial(), jnp.zeros(3), jnp.ones((), bool))
        return memory, prior, model.infer(memory, observation)

    memory, prior, posterior = look(observation)

    @jax.jit
    def both(model: Dreamer, *moments: Any) -> tuple[Any, Any]:
        def one(memory: Any, prior: Any, posterior: Any, observation: dict) -> tuple[Any, Any]:
            objective = objective_of(model, memory, prior, posterior, observation)
            found = jax.value_and_grad(lambda b: objective(b, jr.key(0))[0])(posterior)
            return found[0], found[1].logits

        losses, gradients = in_blocks(one, *moments)  # as an agent does
        return jnp.sum(losses), gradients

    moments = (memory, prior, posterior, observation)
    begun = time.perf_counter()
    loss, gradient = jax.block_until_ready(both(model, *moments))
    first = time.perf_counter() - begun
    times = []
    for _ in range(3 + 30):
        begun = time.perf_counter()
        jax.block_until_ready(both(model, *moments))
        times.append(1e3 * (time.perf_counter() - begun))
    np.savez(
        case,
        **{name: np.asarray(value) for name, value in named(model).items()},
        **{
            "case/memory": np.asarray(memory),
            "case/logits": np.asarray(posterior.logits),
            "case/loss": np.asarray(loss),
            "case/gradient": np.asarray(gradient),
            "case/horizon": np.asarray(HORIZON),
            "case/side": np.asarray(SIDE),
        },
    )
    return {"ms": np.percentile(times[3:], [10, 50, 90]).tolist(), "first_s": first}


if __name__ == "__main__":
    main()
