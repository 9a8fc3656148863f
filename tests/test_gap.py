"""Gaps between beliefs: on problems whose every number is known by a sum."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import Blind, Line, ask, nightly, push, slow
from odd_players import SideBySide

from thinkslow import gap
from thinkslow.agent.agent import Agent
from thinkslow.agent.thinking import Thinking
from thinkslow.distributions import Categorical, Gaussian, Point
from thinkslow.envs.descriptions import described_environment
from thinkslow.evaluation.play import Played
from thinkslow.gap import bounds, drawing, measuring, moment, paths, stored
from thinkslow.gap.bounds import Target, best, importance_bound, loss
from thinkslow.gap.measuring import refusal
from thinkslow.gap.page import build
from thinkslow.gap.summary import Columns, of_agent
from thinkslow.saved.provenance import provenance
from thinkslow.storage import lines
from thinkslow.storage.faults import Damaged
from thinkslow.storage.headers import Occupied, as_read
from thinkslow.toy import exact, filtered, hidden_markov, noisy, simulate
from thinkslow.worldmodel import Moment, State, surprise

PROBLEM = hidden_markov()
MODEL = noisy(PROBLEM, 1.2)
DRAWS = {"sweeps": 2, "draws": 8, "judges": 64}


@pytest.fixture(scope="module")
def stream():
    """Exact priors, beliefs and evidence along an episode, and its symbols."""

    @jax.jit
    def played(key):
        actions = jnp.zeros(16, int)
        _, symbols = simulate(PROBLEM, actions, key=key)
        return filtered(PROBLEM, actions, symbols), symbols

    return played(jr.key(0))


def posed(prior, symbol) -> tuple[Target, Categorical]:
    """What a belief about the toy's state is judged by, and what the noisy encoder believes."""
    memory = jnp.log(prior)

    def cost(latent, key):
        return surprise(MODEL, State(memory, latent), {"symbol": symbol})

    return Target(Categorical(memory), jnp.float32(1.0), cost), MODEL.infer(
        memory, {"symbol": symbol}
    )


@pytest.mark.slow
def test_the_amortisation_gap_of_a_noisy_encoder_is_its_kl_from_the_exact_belief(stream):
    known, symbols = stream

    @jax.jit
    def one(prior, symbol):
        target, encoded = posed(prior, symbol)
        found = best(target, [encoded, target.prior], key=jr.key(1), **DRAWS)
        values = [
            loss(target, belief, draws=512, key=jr.key(2)) for belief in (encoded, found.belief)
        ]
        return encoded, found.belief, values[0] - values[1], values[1]

    encoded, found, gaps, least = jax.lax.map(lambda xs: one(*xs), (known.priors, symbols))
    truth = Categorical(jnp.log(known.beliefs))
    np.testing.assert_allclose(ask(found, "probs"), known.beliefs, atol=1e-4)
    exactly = np.asarray(jax.jit(jax.vmap(lambda q, p: q.kl(p)))(encoded, truth))
    # 512 latents of a cost that varies by about 2 nats, common to both: some hundredths.
    np.testing.assert_allclose(gaps, exactly, atol=0.15)
    np.testing.assert_allclose(gaps.mean(), exactly.mean(), atol=0.05)
    assert exactly.mean() > 0.2
    # One categorical is the whole simplex: nothing is lost by the family.
    np.testing.assert_allclose(least, -known.log_evidence, atol=0.25)


def test_the_importance_weighted_bound_falls_to_the_evidence(stream):
    known, symbols = stream
    sizes = (1, 8, 64, 512, 4096)

    @jax.jit
    def one(prior, symbol):
        target, encoded = posed(prior, symbol)
        return importance_bound(target, encoded, sizes=sizes, key=jr.key(3))

    found = jax.lax.map(lambda xs: one(*xs), (known.priors, symbols))
    values = np.asarray(found.values)
    assert (np.diff(values, axis=1) <= 1e-5).all()
    # The error of a mean of weights is one over the root of how many of them count.
    error = np.abs(values[:, -1] + np.asarray(known.log_evidence))
    assert (error < 4 / np.sqrt(found.effective)).all()
    assert error.max() < 0.2
    assert (found.effective > 50).all()
    assert (found.effective <= 4096.5).all()


@jax.jit
def tied(beta, key):
    """What is found where only equal codes of two factors explain what was seen."""
    even = Categorical(jnp.zeros((2, 2)))

    def cost(latent, key):
        return jnp.float32(8.0) * (1 - jnp.sum(latent[0] * latent[1]))

    target = Target(even, beta, cost)
    begins = [Categorical(jr.normal(k, (2, 2))) for k in jr.split(key)]
    found = best(target, [even, *begins], key=key, **DRAWS).belief
    bound = importance_bound(target, found, sizes=(1, 4096), key=key)
    from_prior = importance_bound(target, even, sizes=(4096,), key=jr.key(1))
    return found.soft(), loss(target, found, draws=4096, key=key), bound, from_prior


@pytest.mark.parametrize("beta", [slow(0.1), slow(1.0)])
def test_the_approximation_gap_of_two_tied_factors_is_known(beta):
    """The truth ties two factors, a belief cannot.

    The best belief puts both factors on one class and loses log 2 times beta, by which the two
    classes together are better than one.
    """
    probs, least, bound, from_prior = tied(jnp.float32(beta), jr.key(0))
    codes = np.array([[0, 1], [1, 0]])
    weights = np.exp(-8.0 / beta * codes) / 4
    assert float(bound.values[0]) == pytest.approx(float(least), abs=0.05)
    # Draws from a belief in one of two codes find the other by chance alone: a bound, from above.
    assert float(bound.values[1]) >= -beta * np.log(weights.sum()) - 0.01
    np.testing.assert_allclose(*np.asarray(probs), atol=1e-2)
    assert float(least) == pytest.approx(
        float(-beta * np.log(weights.sum())) + beta * np.log(2), abs=0.03
    )
    np.testing.assert_allclose(from_prior.values, -beta * np.log(weights.sum()), atol=0.05 * beta)


def test_the_best_gaussian_is_that_of_the_normal_equations():
    prior = Gaussian(jnp.array([0.5, -1.0]), jnp.array([0.2, -0.3]))
    seen, beta = jnp.array([2.0, 0.0]), jnp.float32(0.7)
    target = Target(prior, beta, lambda z, key: jnp.sum(jnp.square(z - seen)))
    begin = Gaussian(jnp.zeros(2), jnp.zeros(2))

    @jax.jit
    def run():
        precision = jnp.exp(-2 * prior.log_scale) + 2 / beta
        mean = (prior.mean * jnp.exp(-2 * prior.log_scale) + 2 / beta * seen) / precision
        truth = Gaussian(mean, -jnp.log(precision) / 2)
        found = best(target, [begin], sweeps=5, draws=16, judges=512, key=jr.key(0)).belief
        bound = importance_bound(target, found, sizes=(1, 1024), key=jr.key(1))
        return found.kl(truth), begin.kl(truth), bound.values

    after, before, (none, many) = jax.device_get(run())
    assert 0 <= after < 0.02
    assert before > 1
    # Of a normal likelihood it is the exact posterior: no gap is left.
    assert 0 <= none - many < 0.01


@pytest.mark.slow
def test_a_belief_stays_in_the_family_of_its_encoder():
    """With a uniform share no class may be less likely than that share."""
    share = ask(Categorical(jnp.array([[0.3, 2.0, -1.0]]), 0.1), "holding_mixed")
    target = Target(share, jnp.float32(0.1), lambda z, key: 50 * z[0, 0])

    @jax.jit
    def run():
        belief = best(target, [share], key=jr.key(0), **DRAWS).belief
        return [one.soft()[0] for one in (share, bounds.unmixed(share), belief)]

    given, unmixed, found = jax.device_get(run())
    np.testing.assert_allclose(unmixed, given, atol=1e-6)
    # The class that costs is as rare as may be, the others as the prior has them.
    np.testing.assert_allclose(found[0], 0.1 / 3, atol=1e-4)
    np.testing.assert_allclose(found[1] / found[2], given[1] / given[2], 1e-3)


def test_what_cannot_be_is_refused():
    point = Point(jnp.zeros(2))
    target = Target(point, jnp.float32(1), lambda z, key: z.sum())
    with pytest.raises(ValueError, match=r"divisor of the next; got \[8, 12\]"):
        importance_bound(target, point, sizes=(8, 12), key=jr.key(0))
    with pytest.raises(TypeError, match="Point"):
        best(target, [point], key=jr.key(0), **DRAWS)


@pytest.mark.parametrize("lag", [nightly(1), slow(3)])
def test_the_conditioning_gap_is_what_the_next_symbols_tell(stream, lag):
    """Of an exact encoder: KL from the filter's belief to the one that knows what followed."""
    known, symbols = stream
    model = exact(PROBLEM)
    moves, shows = np.asarray(PROBLEM.dynamics[0]), np.asarray(PROBLEM.emission)
    effort = moment.Effort(sizes=(1, 8), sweeps=2, restarts=0, draws=32)
    gaps, exactly, scores, nexts = [], [], [], []
    for time in range(2, 10):
        memory = jnp.log(known.priors[time])
        seen = {"symbol": symbols[time]}
        now = Moment(memory, Categorical(memory), model.infer(memory, seen), jnp.ones((), bool))
        after = symbols[time + 1 : time + 1 + lag]
        later = moment.Later(jnp.ones((lag, 1)), {"symbol": after})
        scene, one = moment.Scene(now, seen, later), jnp.float32(1)
        found = moment.searched(model, scene, one, jr.key(time), effort=effort)
        both = jax.tree.map(lambda *xs: jnp.stack(xs), found.best.belief, found.best_later.belief)
        score = moment.scored(model, scene, both, one, jr.key(time))
        gaps.append(float(score.loss_later[0] - score.loss_later[1]))
        belief, values = np.asarray(known.beliefs[time]), np.zeros(PROBLEM.states)
        for symbol in np.asarray(after)[::-1]:
            joint = moves * shows[:, symbol]
            values = -np.log(joint.sum(1)) + (joint / joint.sum(1, keepdims=True)) @ values
        exactly.append(np.log(np.exp(-values) @ belief) + values @ belief)
        scores.append(float(score.next[0]))
        nexts.append(-np.log((belief @ moves) @ shows[:, int(symbols[time + 1])]))
    assert np.mean(exactly) > 0.03
    # Of the costs 128 latents, common to both beliefs; of the next symbol 512.
    np.testing.assert_allclose(gaps, exactly, atol=0.25)
    np.testing.assert_allclose(np.mean(gaps), np.mean(exactly), atol=0.08)
    np.testing.assert_allclose(scores, nexts, atol=0.25)
    np.testing.assert_allclose(np.mean(scores), np.mean(nexts), atol=0.08)


def rows(rng: np.random.Generator, episodes: int = 12, each: int = 8) -> list[dict]:
    """Records whose truth is known: gaps of 2 nats that grow by half of the surprise."""
    out = []
    for episode in range(episodes):
        for decision in range(each):
            surprise = float(rng.exponential(4.0))
            noise = 0.1 * rng.normal()
            gap = 2 + surprise / 2 + noise
            costs = {"none": gap, "half": gap / 2, "best": 0.0, "best-later": 0.3}
            later = {"none": gap + 1, "half": gap / 2 + 1, "best": 1.0, "best-later": 0.0}
            following = {"none": 5.0, "half": 4.5, "best": 5.0, "best-later": 3.0}
            out.append(
                {
                    "agent": "known",
                    "episode": episode,
                    "environment_seed": episode,
                    "of": each,
                    "decision": decision,
                    "surprise": surprise,
                    "effective": 50.0,
                    "begin": 0,
                    "beliefs": {
                        name: {
                            "loss": 7 + costs[name],
                            "kl": 1.5,
                            "loss_later": 9 + later[name],
                            "next": following[name] + noise,
                        }
                        for name in costs
                    },
                    "bound": {"1": 7.0, "8": 6.8, "64": 6.75},
                }
            )
    return out


def test_a_summary_finds_the_truth_that_it_was_given():
    given = rows(np.random.default_rng(0))
    found = of_agent(Columns(given), {"free_nats": 1.0})
    none, half, best_one, _ = found["beliefs"]
    low, high = none["amortisation"]["interval"]
    truth = 2 + np.mean([row["surprise"] for row in given]) / 2
    assert low < truth < high
    assert half["closed"] == pytest.approx(0.5)
    assert half["change"]["next"]["mean"] == pytest.approx(-0.5)
    assert half["change"]["next"]["interval"] == pytest.approx([-0.5, -0.5])
    assert best_one["amortisation"]["mean"] == 0
    assert best_one["conditioning"]["mean"] == pytest.approx(1.0)
    assert found["approximation"]["mean"] == pytest.approx(0.25)
    steps = [row["mean"] for row in found["approximation"]["convergence"]]
    assert steps == pytest.approx([0.0, 0.2, 0.25])
    assert found["below_free_nats"] == 0
    groups = found["deciles"]
    assert [row["decile"] for row in groups] == list(range(1, 11))
    assert sum(row["moments"] for row in groups) == 96
    means = [row["amortisation"]["none"]["mean"] for row in groups]
    assert means[0] < 3 < means[-1]
    assert np.corrcoef(means, range(10))[0, 1] > 0.8


def begin(folder: Path) -> None:
    """Write the settings of a measurement."""
    plan = {"episodes": 2, "moments": 2, "seed": 0, "lag": 2, "samples": 8, "sweeps": 1}
    settings: dict[str, Any] = {**plan, "restarts": 1, "count": 2, "max_decisions": None}
    header = stored.Header(
        environment={"id": "CartPole-v1"}, agents=[], arms=[], versions={}, command="", **settings
    )
    stored.write_header(folder, header)


def test_a_moment_that_is_there_twice_is_refused(tmp_path):
    """Joined files counted it twice."""
    begin(tmp_path)
    first, second, *_ = rows(np.random.default_rng(0))
    empty = {**first, "episode": 1, "of": 1, "decision": None}
    path = tmp_path / stored.MOMENTS
    lines.append(path, [first, second, empty])
    assert stored.read(tmp_path)[1] == [first, second, empty]
    for again, said in ((first, "decision 0 of episode 0 of known"), (empty, "episode 1 of known")):
        path.unlink()
        lines.append(path, [first, second, empty, again])
        with pytest.raises(Damaged, match=f"line 4 is {said} once more"):
            stored.read(tmp_path)


def test_an_integer_that_no_float_holds_is_refused_by_its_line(tmp_path):
    """It ended with an OverflowError that named no file."""
    begin(tmp_path)
    one = next(iter(rows(np.random.default_rng(0))))
    lines.append(tmp_path / stored.MOMENTS, [{**one, "surprise": 10**400}])
    with pytest.raises(Damaged, match="line 1 is not a moment"):
        stored.read(tmp_path)


def test_ways_are_drawn_where_they_are():
    """Ways on a line are one direction of the plane; a corner of a simplex is a sure belief."""
    sure = np.eye(4)[None, :1]
    even = np.full((1, 1, 4), 0.25)
    way = np.concatenate([(1 - s) * sure + s * even for s in np.linspace(0, 1, 5)])
    found = paths.Stored("a", 0, 3, 1.0, {"none": sure, "arm": way, "best": even})
    plane = drawing.plane(found)
    assert plane is not None
    places = np.array(plane.ways[1].places)
    assert (np.diff(places[:, 0]) > 0).all() or (np.diff(places[:, 0]) < 0).all()
    assert np.ptp(places) <= 100 - 2 * drawing.MARGIN + 0.1
    (simplex,) = drawing.simplices(found)
    assert len(simplex.corners) == 3
    corner = np.array(simplex.ways[0].places[0])
    middle = np.array(simplex.ways[2].places[0])
    corners = np.array([[8.0, 86.4], [92.0, 86.4], [50.0, 13.6]])
    assert np.abs(corners - corner).max(1).min() < 0.1
    np.testing.assert_allclose(middle, corners.mean(0), atol=0.1)
    still = paths.Stored("a", 0, 3, 1.0, {"none": sure, "best": sure})
    assert drawing.plane(still) is None


PLAN = {"episodes": 2, "moments": 2, "lag": 2, "samples": 8, "sweeps": 1, "batch": 2, "seed": 3}


def arms(agent: Agent) -> dict:
    return {"none": agent, "evidence": agent.thinking("evidence")}


class Stop(Exception):
    pass


def test_episodes_that_fail_before_every_moment_are_told_and_played_again(
    cart, tmp_path, monkeypatch
):
    """They were called too short, and the same command played them no more."""
    played = [Played(seed, "", crashed=True, error="LookupError: no door") for seed in (1, 2)]
    monkeypatch.setattr(measuring, "play", lambda *_, **__: played)
    monkeypatch.setattr(measuring, "calibrated_in", lambda agent, *_, **__: agent)
    monkeypatch.setattr(measuring, "VectorEnv", SideBySide)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"CartPole-v1 failed before.*LookupError: no door"):
            gap.measure({"none": cart}, "CartPole-v1", gap.Plan(**PLAN), tmp_path)


def test_gaps_are_measured_by_one_version_and_shown_by_any(cart, tmp_path, monkeypatch):
    """Another JAX, or other settings of it, went on with a measurement, and nothing told."""
    now, plan = provenance()["versions"], gap.Plan(**PLAN)
    with monkeypatch.context() as then:
        then.setattr(measuring, "provenance", lambda: {"versions": now | {"jax": "0.1"}})
        header = measuring._header(
            {"cart": {"none": cart}}, described_environment("CartPole-v1"), plan, ""
        )
    stored.write_header(tmp_path, as_read(header))
    with pytest.raises(Occupied, match=r"its versions differ \(jax is 0.1, not "):
        gap.measure({"none": cart}, "CartPole-v1", plan, tmp_path)
    row = {"agent": "cart", "episode": 0, "of": 1, "decision": 0}
    rows = [row, {**row, "episode": 1}]
    monkeypatch.setattr(stored, "read", lambda folder: (as_read(header), rows))
    shown, _ = gap.measure({"none": cart}, "CartPole-v1", plan, tmp_path)
    assert shown.versions["jax"] == "0.1"


@pytest.mark.nightly
def test_measured_gaps_are_the_same_however_often_they_were_interrupted(cart, tmp_path):
    plan = gap.Plan(**PLAN)
    _, whole = gap.measure(arms(cart), "CartPole-v1", plan, tmp_path / "whole")
    assert [row["decision"] is not None for row in whole] == [True] * 4

    def stop(what: str, done: int, total: int) -> None:
        assert total == 4
        if done >= 2:
            raise Stop

    part = tmp_path / "part"
    with pytest.raises(Stop):
        gap.measure(arms(cart), "CartPole-v1", plan, part, show=stop)
    file = part / stored.MOMENTS
    file.write_bytes(file.read_bytes() + b'{"agent": "ca')  # what a kill cut off
    header, again = gap.measure(arms(cart), "CartPole-v1", plan, part)
    assert again == whole
    assert (part / stored.MOMENTS).read_bytes() == (tmp_path / "whole/moments.jsonl").read_bytes()
    assert header.agents[0]["beta"] == 0.1
    for row in whole:
        found = row["beliefs"]
        assert found["best"]["loss"] <= found["none"]["loss"] + 1e-3
        assert row["bound"]["8"] <= row["bound"]["1"] + 1e-5
    with pytest.raises(Occupied, match="its lag is 2, not 1"):
        gap.measure(arms(cart), "CartPole-v1", gap.Plan(**{**PLAN, "lag": 1}), part)
    summary, page = build(part)
    assert json.loads((part / "gap.json").read_text()) == json.loads(json.dumps(summary))
    text = page.read_text()
    assert "evidence" in text
    assert text.count('<figure class="ways plane">') == 2
    ways = paths.read(part / "paths" / "0-0.npz")
    assert ways is not None
    assert len(ways.ways["evidence"]) == 6  # the encoder's belief and five steps
    file.write_text("{}\n")
    with pytest.raises(Damaged, match="line 1 is not a moment"):
        gap.read(part)


@pytest.mark.parametrize(
    ("name", "value"), [("episodes", 0), ("lag", 0), ("samples", 100), ("beta", 0.0)]
)
def test_a_plan_that_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .*got {value}"):
        gap.Plan(**{name: value})


def test_an_arm_whose_gap_is_none_is_refused_with_the_reason(cart):
    assert refusal(cart, None, base=True) is None
    assert "must not think" in str(refusal(cart.thinking("evidence"), None, base=True))
    assert "past" in str(refusal(cart.having(Thinking(lag=2)), None))
    assert "latent" in str(refusal(cart.thinking("paper-z"), None))
    blind, plain = (
        Agent(Blind(jnp.float32(1)), policy=acts),
        Agent(Line(jnp.float32(1)), policy=acts),
    )
    assert "decoder" in str(refusal(blind, None, base=True))
    assert "`beta`" in str(refusal(plain, None, base=True))
    assert refusal(plain, 1.0, base=True) is None


def acts(model, state, key):
    return push(state, key)
