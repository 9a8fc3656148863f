"""What thinking costs: milliseconds per decision, as a ratio to the base decision.

    uv run python benchmarks/decision.py --preset tiny --horizon 8 --steps 1 --batch 1 \
        --objective sig --json
    uv run python benchmarks/decision.py --sweep
    uv run python benchmarks/decision.py --gate surprise --share 0.2

**Claim.** A decision is one compiled call; its price grows at most linearly in horizon, steps and
batch, nothing compiles between decisions, and a closed gate costs no thinking.

**Method.** A freshly initialised agent of the preset on random 64x64 images (the time does not
depend on the weights), three actions. Compile time apart; 5 warm calls, then at least 30 pairs
of one base and one thinking decision in turn, each waited for, and after one of its kind that is
not timed (freeing what the other left would count as its own). Median, 10th and 90th percentile;
`ratio` is the ratio of the medians, of the means with a gate. `gflop` counts the
multiplications and additions of all matrix products and convolutions, loops included;
`peak_gflop_s` is what a product of two 2048x2048 float32 matrices reaches here.

| thinking (`sig`, 8 imagined steps) | base, ms | thinking, ms | ratio |
|------------------------------------|----------|--------------|-------|
| `tiny`                             | 1.05     | 4.04         | 3.8   |
| 16 imagined steps                  | 1.17     | 6.12         | 5.2   |
| 8 refinement steps                 | 1.19     | 18.79        | 15.8  |
| batch 64                           | 4.61     | 121.71       | 26.4  |
| `evidence`                         | 0.62     | 0.91         | 1.5   |
| `size1m`                           | 1.46     | 13.15        | 9.0   |
| `size12m`                          | 4.85     | 88.00        | 18.1  |

docs/results.md has the rest, with every arm (`taskset -c 0 … --horizon 8 --sweep`). The base
decision of `tiny` varies between runs from 0.6 to 1.2 ms, and the ratio with it.

Machine: one core of two, x86-64, nothing else running, Python 3.11.7, jax 0.10.2.
Revision 3571171; batch 64 at 3ba0b93.
"""

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from thinkslow import registry
from thinkslow.agent.abstract import AbstractAgent
from thinkslow.agent.agent import Agent
from thinkslow.agent.arms.arm import arm
from thinkslow.agent.arms.presets import LONG
from thinkslow.agent.checks import Clean
from thinkslow.agent.gates import Gated, GateScore
from thinkslow.agent.gates.gated import threshold_of
from thinkslow.agent.thinking import Thinking
from thinkslow.dreamer.config import model_preset
from thinkslow.dreamer.model import Dreamer
from thinkslow.evaluation.protocol import machine
from thinkslow.refinement import Gradient
from thinkslow.saved.provenance import revision
from thinkslow.spaces import Space
from thinkslow.testing.ways import compilations

WARM, FRAMES = 5, 20
"""Calls before the clock runs; frames that a gate sees."""
ARMS = (
    *("paper-z", "paper-state", "paper-memory", "control-best8"),
    *("smooth-5", "control-lag-3", "control-particles-16"),
    *("robust", "robust-16", "robust-reject", "robust-covered"),
    *("control-masked", "control-misplaced", "control-wiser", "control-reject-random"),
    *("control-median", "control-moments", "predict-through-16", "control-wiser-16"),
)
LOST = ("predict-through", "predict-through-16", "control-hold", "control-stale")
"""Arms that are also measured at a missing frame."""
SWEEP = (
    *({"horizon": horizon} for horizon in (1, 3, 8, 16)),
    *({"steps": steps} for steps in (2, 4, 8)),
    *({"rollouts": rollouts} for rollouts in (2, 4)),
    *({"batch": batch} for batch in (8, 64)),
    *({"objective": objective} for objective in ("entropy", "elbo", "evidence")),
    *({"choice": choice} for choice in ("values", "values:latents=8", "values:horizon=1")),
    *({"choice": "values", "gate": gate} for gate in ("voc", "policy-information", "voc-staged")),
    *({"arm": arm} for arm in ARMS),
    *({"arm": arm, "lost": True} for arm in LOST),
    *({"delay": delay} for delay in (1, 2, 5)),
    *({"preset": preset, "horizon": 8} for preset in ("size1m", "size12m")),
)
"""What `--sweep` changes, one at a time, from the flags given."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One decision to measure."""

    preset: str = "tiny"
    objective: str = "sig"
    horizon: int = 3
    rollouts: int = 1
    steps: int = 1
    batch: int = 1
    choice: str | None = None
    """By value in place of refinement, such as `values:latents=8`."""
    arm: str | None = None
    """A named arm in place of refinement. For a check, every frame is suspicious: the most that it
    may cost. With several futures, the frame before was missing, so that the present one chooses.
    """
    lost: bool = False
    """Whether the frame is missing; for arms that use flags of missing frames."""
    delay: int = 0
    """Predicting through frames that are this many decisions late, in place of refinement."""
    gate: str | None = None
    share: float = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = {"objective": "term", "gate": "gate"}
    for field in dataclasses.fields(Setting):
        choices = registry.entries(kinds[field.name]) if field.name in kinds else None
        kind = str if field.default is None else type(field.default)
        if kind is bool:
            parser.add_argument(f"--{field.name}", action="store_true")
            continue
        parser.add_argument(f"--{field.name}", type=kind, default=field.default, choices=choices)
    parser.add_argument("--only", help="settings of the sweep that name one of these, by comma")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--sweep", action="store_true", help="a table of many settings")
    parser.add_argument("--json", action="store_true", help="one JSON object per setting")
    given = vars(parser.parse_args())
    repeats, sweep, as_json = (given.pop(name) for name in ("repeats", "sweep", "json"))
    only = (given.pop("only") or "").split(",")
    base = Setting(**given)
    about = {"peak_gflop_s": peak(), "machine": machine(), "revision": revision()}
    wanted = [one for one in SWEEP if only == [""] or {*map(str, one.values()), *one} & {*only}]
    for change in wanted if sweep else ({},):
        found = measure(dataclasses.replace(base, **change), max(30, repeats)) | about
        if as_json:
            print(json.dumps(found), flush=True)
        elif sweep:
            shown = ", ".join(f"{key} {value}" for key, value in change.items())
            print(
                f"| {shown} | {found['base_ms']:.2f} | {found['latency_ms']:.2f} | "
                f"{found['ratio']:.1f} | {found['gflop_s']:.1f} | {found['compile_s']:.1f} |",
                flush=True,
            )
        else:
            print("\n".join(f"{key}: {value}" for key, value in found.items()))


def measure(setting: Setting, repeats: int) -> dict[str, Any]:
    """Milliseconds of the base decision and of the thinking one, in turn."""
    model = Dreamer(
        {"image": Space((64, 64, 3), "uint8")},
        {"action": Space((), "int32", 3)},
        model_preset(setting.preset),
        key=jr.key(0),
    )
    thinking = Thinking(
        {registry.make("term", setting.objective): 1.0},
        steps=setting.steps,
        horizon=setting.horizon,
        rollouts=setting.rollouts,
        update=Gradient(LONG),
        record=False,
    )
    if setting.choice is not None:
        thinking = Thinking(choice=registry.make("choice", setting.choice))
    if setting.arm is not None:
        thinking = arm(setting.arm).thinking
    if setting.delay:
        thinking = Thinking(missing="predict", delay=setting.delay)
    agents: dict[str, Any] = {
        "base": Agent(model),
        "thinking": Agent(model, thinking, returns=1.0, clean=Clean.even(model, -1.0)),
    }
    plain = dict(agents)
    if setting.gate is not None:
        agents["thinking"] = gated(agents["thinking"], setting)
    decide, compile_s = {}, {}
    for name, agent in agents.items():
        begun = time.perf_counter()
        decide[name] = decision(agent, setting)
        decide[name](0)
        compile_s[name] = time.perf_counter() - begun
    if isinstance(agents["thinking"], Gated):
        *arguments, keys = inputs(agents["thinking"], setting.batch, 0)
        agents["thinking"].warm(*arguments, keys=keys)
    for call in decide.values():
        for index in range(WARM):
            call(index)
    compiled = compilations()
    pairs = []
    for index in range(repeats):
        pairs.append({})
        for name, call in decide.items():
            call(index)
            pairs[-1][name] = 1e3 * seconds(call, index)
    if compilations() != compiled:
        raise RuntimeError("Something was compiled between two decisions.")
    # Afterwards: what was traced by hand takes JAX's slower way from then on.
    flop = {name: operations(agent, setting) for name, agent in plain.items()}
    times = {name: np.array([pair[name] for pair in pairs]) for name in decide}
    centre = np.median if setting.gate is None else np.mean
    middle = {name: float(centre(values)) for name, values in times.items()}
    return {
        **dataclasses.asdict(setting),
        "ratio": middle["thinking"] / middle["base"],
        "latency_ms": middle["thinking"],
        "base_ms": middle["base"],
        "p10_p90_ms": np.percentile(times["thinking"], [10, 90]).tolist(),
        "compile_s": compile_s["thinking"],
        "gflop": flop["thinking"] / 1e9,
        "gflop_s": flop["thinking"] / 1e6 / middle["thinking"],
        "base_gflop_s": flop["base"] / 1e6 / middle["base"],
        "repeats": len(pairs),
    }


def inputs(agent: AbstractAgent, batch: int, index: int) -> tuple:
    images = np.random.default_rng(index).integers(0, 255, (batch, 64, 64, 3), dtype=np.uint8)
    images[:, :16, :16] = 0  # covered, for `control-masked`
    keys = jr.split(jr.key(index), batch)
    return agent.start(batch), {"image": jnp.asarray(images)}, jnp.zeros(batch, bool), keys


def decision(agent: AbstractAgent, setting: Setting) -> Callable[[int], None]:
    """A call that decides once for the whole batch and waits for the answer.

    With a gate every call sees another frame, so that it opens for some; else always the same.
    """
    count = FRAMES if isinstance(agent, Gated) else 1
    frames: list[Any] = [inputs(agent, setting.batch, index) for index in range(count)]
    told = flags(agent, setting)
    if told:
        _, *rest, keys = frames[0]
        carry = agent.start(setting.batch)
        for missing in [False] * setting.delay + [False, True]:
            lost: dict[str, Any] = {"missing": np.full(setting.batch, missing)}
            carry, _, _ = agent.act(carry, *rest, keys=keys, **lost)
        frames = [(carry, *rest, keys)]

    def call(index: int) -> None:
        *arguments, keys = frames[index % len(frames)]
        jax.block_until_ready(agent.act(*arguments, keys=keys, **told))

    return call


def flags(agent: AbstractAgent, setting: Setting) -> dict[str, Any]:
    """Which frames of a decision are missing, for an agent that asks for it."""
    if agent.inner is None or agent.inner.settings.missing is None:
        return {}
    return {"missing": np.full(setting.batch, setting.lost)}


def gated(agent: Agent, setting: Setting) -> Gated:
    """The agent behind a gate that opens for `share` of the frames to come."""

    def threshold(score: GateScore, share: float) -> float:
        closed, found = Gated(agent, score, np.inf), []
        for index in range(FRAMES):
            *arguments, keys = inputs(agent, setting.batch, index)
            found.append(closed.act(*arguments, keys=keys)[2].doubt)
        return threshold_of(np.array(found), share)

    score = registry.make("gate", str(setting.gate)).calibrated(threshold)
    return Gated(agent, score, threshold(score, setting.share))


def seconds(call: Callable[[int], None], index: int) -> float:
    begun = time.perf_counter()
    call(index)
    return time.perf_counter() - begun


def peak() -> float:
    """Gigaflops a second of a product of large float32 matrices."""
    side = 2048
    matrix = jr.normal(jr.key(0), (side, side))
    product = jax.jit(lambda x: x @ x)
    product(matrix).block_until_ready()
    times = [seconds(lambda _: product(matrix).block_until_ready(), 0) for _ in range(10)]
    return 2 * side**3 / 1e9 / float(np.median(times))


def operations(agent: Agent, setting: Setting) -> float:
    """Floating-point operations of the products and convolutions of one decision."""
    *arguments, keys = inputs(agent, setting.batch, 0)
    told = flags(agent, setting)
    traced = jax.make_jaxpr(lambda *a: agent.act(*a[:-1], keys=a[-1], **told))(*arguments, keys)
    return operations_of(traced.jaxpr)


def operations_of(jaxpr: Any) -> float:
    """The same for a whole program: loops as often as they run, every branch of a choice."""
    total = 0.0
    for equation in jaxpr.eqns:
        out = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        match equation.primitive.name:
            case "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                shape = equation.invars[0].aval.shape
                total += 2 * out * math.prod(shape[axis] for axis in contracted)
            case "conv_general_dilated":
                kernel = equation.invars[1].aval.shape
                channels = equation.params["dimension_numbers"].rhs_spec[0]
                total += 2 * out * math.prod(kernel) / kernel[channels]
            case "product":
                total += 2 * out * equation.invars[0].aval.shape[-1]
            case "convolve":
                kernel = equation.invars[1].aval.shape
                total += 2 * out * math.prod(kernel[:3])
            case name:
                times = equation.params["length"] if name == "scan" else 1
                total += times * sum(
                    operations_of(getattr(inner, "jaxpr", inner))
                    for value in equation.params.values()
                    for inner in (value if isinstance(value, tuple | list) else (value,))
                    if hasattr(getattr(inner, "jaxpr", inner), "eqns")
                )
    return total


if __name__ == "__main__":
    main()
