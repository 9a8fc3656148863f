"""Checks of frames, on a model whose codes are known: what they mend, reject and leave alone."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import codes, equal, nightly, steer, tiny_dreamer

from thinkslow.agent.agent import Agent
from thinkslow.agent.checks import (
    Check,
    Clean,
    Covered,
    Frame,
    Judgement,
    Masked,
    Median,
    Misplaced,
    Moments,
    RandomRejection,
    Robust,
    Verdict,
    Wiser,
)
from thinkslow.agent.checks.clean import patched
from thinkslow.agent.thinking import Thinking
from thinkslow.distributions import Categorical
from thinkslow.evaluation.clean import clean_of
from thinkslow.heads import Squared
from thinkslow.readouts import Mode
from thinkslow.worldmodel import State, WorldModel

pytestmark = pytest.mark.usefixtures("strict")

WIDTH, CLASSES = 16, 4
SIGNS = np.sign(np.random.default_rng(1).normal(size=(CLASSES, WIDTH))).astype(np.float32)
NOISE = 0.05


class Signs(WorldModel):
    """A state is one of four rows of signs, shown as they are; it mostly stays what it was."""

    rows: jax.Array
    stay: float = eqx.field(static=True, default=0.9)

    def initial(self) -> State:
        return State(jnp.zeros(CLASSES), jnp.zeros(CLASSES))

    def predict(self, state: State, action: jax.Array, is_first: jax.Array):
        even = jnp.full(CLASSES, 1 / CLASSES)
        stays = self.stay * state.latent + (1 - self.stay) * even
        memory = jnp.log(jnp.where(is_first, even, stays))
        return memory, Categorical(memory)

    def infer(self, memory: jax.Array, observation: Mapping[str, Any]) -> Categorical:
        gaps = jnp.sum(jnp.square(observation["row"] - self.rows), -1)
        return Categorical(memory - gaps)

    def decode(self, state: State) -> dict[str, Any]:
        return {"row": Squared(state.latent @ self.rows)}

    def policy(self, state: State, key: jax.Array) -> jax.Array:
        return state.latent[:2]


NO_BLOCKS = jnp.full(2, jnp.inf)
CLEAN = Clean(
    {"row": jnp.full(WIDTH, NOISE**2)},
    threshold=3.0,
    unrelated=7.5,
    alone=0.5,
    largest={},
    blocks=NO_BLOCKS,
    means={},
    deviations={},
)
FIRST, STEADY = np.ones(1, bool), np.zeros(1, bool)


def agent(check: Check | None, clean: Clean = CLEAN) -> Agent:
    return Agent(Signs(jnp.asarray(SIGNS)), Thinking(check=check), clean=clean)


def frame(
    state: int, *, wrong: tuple[int, ...] = (), hidden: int = 0, seed: int = 0
) -> dict[str, np.ndarray]:
    """A row with a little noise; at `wrong` places far from every sign, at the first `hidden` ones
    zero, which speaks for no state."""
    row = SIGNS[state] + NOISE * np.random.default_rng(seed).normal(size=WIDTH)
    row[:hidden] = 0
    row[list(wrong)] = -6.0 * SIGNS[state][list(wrong)]
    return {"row": row.astype(np.float32)[None]}


def after(played: Agent, *frames: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """The last carry and thought along the frames of one episode."""
    carry, thought = played.start(1), None
    for time, seen in enumerate(frames):
        key = jr.split(jr.fold_in(jr.key(0), time), 1)
        carry, _, thought = played.act(carry, seen, FIRST if time == 0 else STEADY, keys=key)
    return carry, thought


def test_a_memory_of_a_check_that_is_not_finite_is_reset():
    """Its share of rejections stayed NaN, and no frame was ever too much."""
    played = agent(Robust(beta=0.1))
    carry, _ = after(played, frame(0))
    broken = jax.tree.map(
        lambda x: jnp.full_like(x, jnp.nan) if jnp.issubdtype(x.dtype, jnp.floating) else x, carry
    )
    carry, _, _ = played.act(broken, frame(0), STEADY, keys=jr.split(jr.key(1), 1))
    numbers = [x for x in jax.tree.leaves(carry) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert all(np.isfinite(x).all() for x in numbers)


def verdict(thought: Any) -> int:
    return int(thought.checked.verdict[0])


def test_a_frame_that_a_latent_explains_is_left_alone_however_surprising():
    frames = [frame(0), frame(0, seed=1), frame(2, seed=2)]
    carry, thought = after(agent(Robust(beta=0.1)), *frames)
    plain_carry, plain = after(agent(None), *frames)
    assert np.argmax(plain.prior.soft()[0]) != np.argmax(plain.before.soft()[0])
    equal(
        (carry.state, carry.action, thought.after),
        (plain_carry.state, plain_carry.action, plain.after),
    )
    assert verdict(thought) == Verdict.BELIEVED
    assert not thought.thinks[0]


def test_a_frame_with_wrong_places_is_mended_to_what_the_others_say():
    """The wrong places speak for another state; the rest, and memory, for the true one."""
    wrong = (0, 1, 2)
    frames = [frame(1), frame(1, seed=1), frame(1, wrong=wrong, seed=2)]
    _, plain = after(agent(None), *frames)
    _, thought = after(agent(Robust(beta=0.1)), *frames)
    assert verdict(thought) == Verdict.MENDED
    assert np.argmax(thought.after.soft()[0]) == 1
    assert thought.after.soft()[0, 1] > 0.99
    # The same without a memory of it: the second of two frames shows another state.
    _, moved = after(agent(Robust(beta=0.1)), frame(0), frame(3, wrong=(0,), seed=3))
    assert np.argmax(moved.after.soft()[0]) == 3
    assert np.argmax(plain.after.soft()[0]) in range(CLASSES)


def test_a_frame_that_is_wrong_everywhere_leaves_the_prior():
    noise = {"row": np.random.default_rng(5).normal(0, 20, (1, WIDTH)).astype(np.float32)}
    for check in (Robust(beta=0.1), Robust(rounds=0, beta=0.1)):
        _, thought = after(agent(check), frame(0), frame(0, seed=1), noise)
        assert verdict(thought) == Verdict.REJECTED
        np.testing.assert_allclose(thought.after.soft(), thought.prior.soft(), atol=1e-6)
        assert thought.thinks[0]


@pytest.mark.parametrize(("unrelated", "rejected"), [(6.5, True), (8.0, False)])
def test_a_frame_as_far_off_as_an_unrelated_one_is_no_evidence(unrelated, rejected):
    """A fourth of it is explained; whether that is much follows from frames of other episodes."""
    clean = dataclasses.replace(CLEAN, unrelated=unrelated)
    partly = frame(1, seed=2)
    partly["row"][:, :12] += 10 * NOISE
    _, thought = after(agent(Robust(rounds=0, beta=0.1), clean), frame(0), partly)
    assert 6.5 < thought.checked.distance[0] < 8.0
    assert (verdict(thought) == Verdict.REJECTED) == rejected


def test_the_distance_of_unrelated_frames_is_a_median():
    own, others = {"row": np.ones((100, 2))}, {"row": np.arange(200.0).reshape(100, 2) / 40}
    none = {}
    clean = clean_of([(own, others, np.ones(100), none, none)])
    assert clean.unrelated == pytest.approx(np.median(others["row"].mean(1)))


def test_rejecting_alone_never_mends():
    frames = [frame(1), frame(1, seed=1), frame(1, wrong=(0, 1, 2), seed=2)]
    assert verdict(after(agent(Robust(rounds=0, beta=0.1)), *frames)[1]) != Verdict.MENDED


def test_after_many_rejections_in_a_row_the_memory_starts_anew():
    """The memory sees nothing else any more, and the frames are too poor to contradict it alone."""
    frames = [frame(2, hidden=8, seed=seed) for seed in range(4)]
    check = Robust(beta=0.1, patience=3, rounds=0)
    played = Agent(Locked(jnp.asarray(SIGNS)), Thinking(check=check, readout=Mode()), clean=CLEAN)
    _, thought = after(played, frame(0), frame(0, seed=1), *frames)
    assert verdict(thought) == Verdict.RESTARTED
    assert np.argmax(thought.after.soft()[0]) == 2
    _, thought = after(played, frame(0), frame(0, seed=1), *frames[:3])
    assert verdict(thought) == Verdict.REJECTED


def nonsense(count: int, size: float = 20.0) -> list[dict[str, np.ndarray]]:
    rows = [np.random.default_rng(seed).normal(0, size, (1, WIDTH)) for seed in range(count)]
    return [{"row": row.astype(np.float32)} for row in rows]


def test_a_memory_never_starts_anew_from_frames_that_say_nothing():
    """A long loss of frames once erased what the memory knew, every ninth frame."""
    _, thought = after(agent(Robust(beta=0.1, patience=3)), frame(0), *nonsense(6))
    assert verdict(thought) == Verdict.REJECTED


class Locked(Signs):
    """A carried state that no observation can correct, as after a lock-in."""

    def infer(self, memory: jax.Array, observation: Mapping[str, Any]) -> Categorical:
        return Categorical(20 * memory + super().infer(jnp.zeros(CLASSES), observation).logits)


def test_a_memory_that_a_frame_without_history_contradicts_is_forgotten():
    locked = Agent(
        Locked(jnp.asarray(SIGNS)), Thinking(check=Robust(beta=0.1), readout=Mode()), clean=CLEAN
    )
    _, thought = after(locked, frame(0), frame(0, seed=1), frame(2, seed=2))
    assert verdict(thought) == Verdict.RESTARTED
    assert np.argmax(thought.after.soft()[0]) == 2


STRICT = dataclasses.replace(CLEAN, threshold=6.0)
"""16 noisy numbers: their own errors vary, so fewer of them are suspicious by chance."""


def noisy(state: int, *, seed: int, deviation: float = 0.4) -> dict[str, np.ndarray]:
    """A row whose noise is eight times as large as in training, in every frame."""
    noise = np.random.default_rng(100 + seed).normal(0, deviation, (1, WIDTH))
    return {"row": (SIGNS[state][None] + noise).astype(np.float32)}


def test_noise_that_every_frame_has_is_used_as_it_is():
    """Noisy frames were rejected, though they tell the state: the score fell by two thirds."""
    frames = [noisy(time // 4 % CLASSES, seed=time) for time in range(24)]
    carry, thought = after(agent(Robust(beta=0.1), STRICT), *frames)
    plain_carry, _ = after(agent(None), *frames)
    equal((carry.state, carry.action), (plain_carry.state, plain_carry.action))
    assert verdict(thought) == Verdict.SHIFTED
    assert not thought.checked.suspicious[0]
    assert thought.checked.level[0] > 4


def test_noise_that_begins_late_is_believed_after_some_frames():
    clear = [frame(0, seed=seed) for seed in range(25)]
    frames = [noisy(0, seed=seed) for seed in range(20)]
    _, thought = after(agent(Robust(beta=0.1), STRICT), *clear, *frames)
    assert verdict(thought) == Verdict.SHIFTED


def test_a_lost_frame_among_noisy_ones_is_still_rejected():
    frames = [noisy(0, seed=seed) for seed in range(12)]
    _, thought = after(agent(Robust(beta=0.1), STRICT), *frames, *nonsense(1, 60.0))
    assert verdict(thought) == Verdict.REJECTED


def test_a_frame_that_is_explained_in_part_is_not_rejected():
    """Half of it says what the state is; without repair it is used as it is."""
    frames = [frame(1), frame(1, seed=1), frame(1, hidden=8, seed=2)]
    _, thought = after(agent(Robust(beta=0.1, rounds=0)), *frames)
    assert thought.checked.suspicious[0]
    assert verdict(thought) == Verdict.BELIEVED


def test_random_rejections_are_as_many_as_suspicious_frames():
    rng, count = np.random.default_rng(0), 64
    played = Agent(Signs(jnp.asarray(SIGNS)), Thinking(check=RandomRejection()), clean=CLEAN)
    carry, rejected, suspicious = played.start(count), 0, 0
    for time in range(20):
        rows = SIGNS[np.zeros(count, int)] + NOISE * rng.normal(size=(count, WIDTH))
        broken = rng.random(count) < 0.4
        rows[broken] = rng.normal(0, 20, (broken.sum(), WIDTH))
        keys = jr.split(jr.fold_in(jr.key(0), time), count)
        carry, _, thought = played.act(
            carry, {"row": rows.astype(np.float32)}, np.full(count, time == 0), keys=keys
        )
        assert thought.checked is not None
        rejected += int(np.sum(thought.checked.verdict == Verdict.REJECTED))
        suspicious += int(np.sum(thought.checked.suspicious))
    assert 0.3 * 20 * count < suspicious < 0.5 * 20 * count
    assert abs(rejected - suspicious) < 4 * np.sqrt(suspicious)


def test_without_history_decides_the_rule_of_wiser():
    _, kept = after(agent(Wiser()), frame(0), frame(2, seed=1))
    _, lost = after(agent(Wiser()), frame(0), frame(0, wrong=(0, 1, 2), seed=1))
    assert (verdict(kept), verdict(lost)) == (Verdict.BELIEVED, Verdict.REJECTED)


class Dim(Check):
    """Rejects a frame of small numbers."""

    def suspects(self, frame: Frame, distance: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(jnp.asarray(frame.observation["row"]))) < 0.5

    def judge(self, frame: Frame, suspicious: jax.Array) -> Judgement:
        return frame.rejected(suspicious)


class Bare(Dim):
    def judge(self, frame: Frame, suspicious: jax.Array) -> Any:
        return tuple(super().judge(frame, suspicious))


def test_a_check_of_your_own_says_what_is_suspicious_and_what_is_used():
    dark = {"row": np.zeros((1, WIDTH), np.float32)}
    _, thought = after(agent(Dim()), frame(0), dark)
    assert thought.checked.suspicious[0]
    assert verdict(thought) == Verdict.REJECTED
    equal(thought.after.soft(), thought.prior.soft())
    _, thought = after(agent(Dim()), frame(0), frame(2, seed=1))
    assert not thought.checked.suspicious[0]
    assert np.argmax(thought.after.soft()[0]) == 2


def test_a_check_that_returns_a_bare_tuple_is_told_what_to_return():
    with pytest.raises(TypeError, match=r"`judge` of Bare .*`Judgement`.*tuple"):
        after(agent(Bare()), frame(0))


SIDE, PATCHES = 8, 4
USUAL = {"image": jnp.full((PATCHES, PATCHES), NOISE**2)}
PICTURED = Clean(USUAL, 3.0, 7.5, 0.5, USUAL, jnp.array([9.0, 9.0]), means={}, deviations={})


class Pictures(Signs):
    """The signs as the brightness of 4x4 patches of an image: .3 or .7."""

    def infer(self, memory: jax.Array, observation: Mapping[str, Any]) -> Categorical:
        image = jnp.asarray(observation["image"])
        rows = (patched(image).ravel() - 0.5) / 0.2
        return super().infer(memory, {"row": rows})

    def decode(self, state: State) -> dict[str, Any]:
        shown = 0.5 + 0.2 * super().decode(state)["row"].mode().reshape(PATCHES, PATCHES)
        return {"image": Squared(jnp.repeat(jnp.repeat(shown, SIDE, 0), SIDE, 1)[..., None])}


BLOCK = ((1, 1), (1, 2), (2, 1), (2, 2))
"""Places in the middle of the image."""
VIEWS = SIGNS.reshape(CLASSES, PATCHES, PATCHES).copy()
VIEWS[1, 1:3, 1:3] = 1
VIEWS[0] = -VIEWS[1]
VIEWS[2] = VIEWS[1]
VIEWS[2, 1:3, 1:3] = -1
"""States 1 and 2 differ in the middle only, where a black cover speaks for state 2."""


def picture(state: int, *, black: tuple[tuple[int, int], ...] = ()) -> dict[str, np.ndarray]:
    shown = 0.5 + 0.2 * VIEWS[state]
    for place in black:
        shown[place] = 0
    return {"image": shown.repeat(SIDE, 0).repeat(SIDE, 1)[None, ..., None].astype(np.float32)}


def pictures(check: Check | None, clean: Clean = PICTURED) -> Agent:
    return Agent(
        Pictures(jnp.asarray(VIEWS.reshape(CLASSES, WIDTH))), Thinking(check=check), clean=clean
    )


def judged_covered(check: Covered, **shown: Any) -> np.ndarray:
    """Which patches a check takes as covered, of the second frame of an episode."""
    seen: list[np.ndarray] = []

    class Watched(type(check)):
        def covered(self, frame: Frame) -> dict[str, jax.Array]:
            found = super().covered(frame)
            jax.debug.callback(lambda x: seen.append(np.asarray(x)), found["image"])
            return found

    after(pictures(Watched(beta=0.1)), picture(1), picture(1, **shown))
    jax.effects_barrier()
    return seen[-1]


def test_a_covered_block_is_found_and_what_it_hides_is_predicted():
    covered = judged_covered(Covered(beta=0.1), black=BLOCK)
    assert sorted(zip(*np.nonzero(covered), strict=True)) == sorted(BLOCK)
    _, plain = after(pictures(None), picture(1), picture(1, black=BLOCK))
    assert plain.after.soft()[0, 1] < 0.01
    _, thought = after(pictures(Covered(beta=0.1)), picture(1), picture(1, black=BLOCK))
    assert verdict(thought) == Verdict.MENDED
    assert thought.after.soft()[0, 1] > 0.99


def test_a_block_may_be_large_and_hardly_unusual_or_small_and_very_unusual():
    usual = dataclasses.replace(PICTURED, blocks=jnp.array([30.0, 9.0]))
    errors = np.full((PATCHES, PATCHES), NOISE**2)
    for side, times, covered in ((2, 20, 0), (2, 40, 4), (3, 20, 9), (3, 5, 0)):
        shown = errors.copy()
        shown[:side, :side] *= times
        found = usual.covered({"image": jnp.asarray(shown)})["image"]
        assert int(found.sum()) == covered
        assert bool(found[:side, :side].all()) == (covered > 0)
    # A place whose errors are often large needs larger ones.
    often = dataclasses.replace(usual, largest={"image": USUAL["image"].at[0, 0].multiply(10)})
    shown = errors.copy()
    shown[:2, :2] *= 40
    assert not often.covered({"image": jnp.asarray(shown)})["image"].any()


def test_one_in_a_hundred_clean_frames_has_a_covered_patch():
    rng = np.random.default_rng(0)
    scale = np.exp(rng.normal(size=(8_000, 1, 1)))  # of a whole frame, so that blocks occur
    errors = np.exp(rng.normal(size=(8_000, 6, 6))) * scale
    none = {"image": np.zeros((8_000, 3))}
    clean = clean_of(
        [({"image": errors[:4_000]}, {"image": errors[:4_000]}, np.zeros(4_000), none, none)]
    )
    found = jax.vmap(lambda x: clean.covered({"image": x})["image"])(jnp.asarray(errors[4_000:]))
    share = np.asarray(found).any((1, 2)).mean()
    assert 0.004 < share < 0.016  # 40 of 4,000, give or take three deviations of both halves


def test_one_wrong_patch_and_a_new_view_are_no_cover():
    """A single patch is often wrong on clean frames, and a latent that explains a new view has no
    errors."""
    for frames in ([picture(1), picture(1, black=BLOCK[:1])], [picture(1), picture(3)]):
        carry, thought = after(pictures(Covered(beta=0.1)), *frames)
        plain_carry, plain = after(pictures(None), *frames)
        equal((carry.state, thought.after), (plain_carry.state, plain.after))
        assert verdict(thought) == Verdict.BELIEVED


def test_a_bad_frame_that_a_check_believes_is_no_shift():
    """Of a glaring frame every patch is wrong, but none so wrong that it counts as covered."""
    usual = dataclasses.replace(PICTURED, blocks=jnp.array([30.0, 30.0]))
    glaring = {"image": picture(1)["image"] + 0.25 * np.sign(picture(1)["image"] - 0.5)}
    _, thought = after(pictures(Covered(beta=0.1), usual), picture(1), glaring)
    assert thought.checked.distance[0] > usual.threshold
    assert verdict(thought) == Verdict.BELIEVED


@pytest.mark.slow
def test_the_control_replaces_as_many_patches_elsewhere():
    covered = judged_covered(Misplaced(beta=0.1), black=BLOCK)
    assert covered.sum() == len(BLOCK)
    assert sorted(zip(*np.nonzero(covered), strict=True)) != sorted(BLOCK)


MOST = (*((row, column) for row in range(PATCHES) for column in range(2)), (0, 2), (1, 2))


def test_a_frame_of_which_most_is_covered_is_rejected():
    """What is left of it was used: of a lost frame that is shown as black, the dark parts."""
    _, thought = after(pictures(Covered(beta=0.1)), picture(1), picture(2, black=MOST))
    assert verdict(thought) == Verdict.REJECTED
    equal(thought.after.soft(), thought.prior.soft())


class Stubborn(Pictures):
    """No frame moves it from the state that it was in."""

    def predict(self, state: State, action: jax.Array, is_first: jax.Array):
        memory = jax.nn.log_softmax(jnp.where(is_first, 0.0, 500.0) * state.latent)
        return memory, Categorical(memory)


def test_a_view_that_the_memory_denies_starts_a_new_one_after_eight_rejections():
    """Most of it counts as covered, and what was left never spoke for a new memory."""
    model = Stubborn(jnp.asarray(VIEWS.reshape(CLASSES, WIDTH)))
    played = dataclasses.replace(pictures(Covered(beta=0.1)), model=model)
    frames = [picture(1), *[picture(0)] * 9]
    _, thought = after(played, *frames[:-1])
    assert verdict(thought) == Verdict.REJECTED
    _, thought = after(played, *frames)
    assert verdict(thought) == Verdict.RESTARTED
    assert np.argmax(thought.after.soft()[0]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "check",
    [Covered(), Misplaced(), Wiser(), *map(nightly, (Robust(), Masked(), Median(), Moments()))],
    ids=str,
)
def test_images_are_checked_in_one_program(check):
    """A random DreamerV3: every check runs, twice in one trace, and gives a finite belief."""
    dreamer = tiny_dreamer()
    usual = Clean(
        {"image": jnp.full((2, 2), 0.01)},
        1.0,
        8.0,
        0.01,
        {"image": jnp.full((2, 2), 0.1)},
        jnp.array([1.0, jnp.inf]),
        {"image": jnp.full(3, 0.4)},
        {"image": jnp.full(3, 0.2)},
    )
    played = Agent(dreamer, Thinking(check=check, missing="predict"), clean=usual)
    image = np.random.default_rng(0).integers(256, size=(2, 16, 16, 3)).astype(np.uint8)
    image[0, :8, :8] = 0
    keys, first = jr.split(jr.key(0), 2), np.ones(2, bool)
    act = partial(played.act, keys=keys)
    carry, _, _ = act(played.start(2), {"image": image}, first, missing=~first)
    _, _, thought = act(carry, {"image": image}, ~first, missing=~first)
    assert np.isfinite(thought.after.soft()).all()
    assert np.isfinite(thought.moved).all()
    gone = np.array([True, False])
    _, _, lost = act(carry, {"image": image}, ~first, missing=gone)
    assert lost.checked is not None
    assert not lost.checked.suspicious[0]  # a frame that did not come is not judged
    equal(lost.after.soft()[0], lost.prior.soft()[0])


def test_a_check_that_is_not_calibrated_says_how():
    waiting = Agent(Signs(jnp.asarray(SIGNS)), Thinking(check=Wiser()))
    with pytest.raises(ValueError, match=r"thinkslow\.calibrated"):
        after(waiting, frame(0))


@pytest.mark.usefixtures("untyped")
def test_what_a_check_needs_is_asked_for():
    with pytest.raises(ValueError, match=r"`Median` .* decodes no image, only row"):
        Agent(Signs(jnp.asarray(SIGNS)), Thinking(check=Median()))
    with pytest.raises(ValueError, match="trained_beta"):
        Agent(Signs(jnp.asarray(SIGNS)), Thinking(check=Robust()))
    with pytest.raises(ValueError, match="so `lag` must be 0; got 2"):
        Thinking(check=Wiser(), lag=2)
    assert (
        Agent(codes(), policy=lambda model, state, key: steer(state, key)).cannot(
            Thinking(check=Wiser())
        )
        is None
    )
