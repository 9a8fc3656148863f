"""A bank of decisions: exact where it can be, and the same however often it was interrupted."""

import contextlib
import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_dreamer
from own_model import Recurrent, made

from thinkslow import bank
from thinkslow.agent.abstract import About
from thinkslow.agent.agent import Agent
from thinkslow.agent.thinking import Thinking
from thinkslow.bank import filling
from thinkslow.bank.judging import Choices, opened
from thinkslow.bank.stored import Header, Moments, begin
from thinkslow.bank.summary import summarise
from thinkslow.cli.bank import scope, tables
from thinkslow.cli.common import output
from thinkslow.envs import Failure, Step, VectorEnv
from thinkslow.envs.descriptions import described_environment
from thinkslow.envs.snapshots import Snapshot
from thinkslow.saved.provenance import provenance
from thinkslow.spaces import Space
from thinkslow.storage import lock
from thinkslow.storage.faults import Damaged, Missing
from thinkslow.storage.headers import Occupied, as_read, write_json

PLAN = bank.Plan(moments=6, every=3, futures=2, horizon=3, batch=2, seed=3)


def centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(1, keepdims=True)


def choices(rng: np.random.Generator, *, noise: float, episodes: int = 40, each: int = 10):
    """A world whose truth is known: three actions, the arm takes the best half of the time."""
    count = episodes * each
    worth = rng.normal(size=(count, 3))
    returns = worth[:, :, None] + noise * rng.normal(size=(count, 3, 2))
    even = np.full((count, 3), 1 / 3)
    best = np.eye(3)[worth.argmax(1)]
    return worth, Choices(
        episode=np.repeat(np.arange(episodes), each),
        returns=returns,
        base=even,
        shifts={"half": (best - even) / 2, "same": np.zeros((count, 3))},
        changed={"half": np.full(count, 1 / 3), "same": np.zeros(count)},
        doubts={},
        shares={},
        scores={"knows": worth.max(1) - worth.mean(1), "coin": rng.random(count)},
        imagined={"half": centred(worth + 0.5 * rng.normal(size=worth.shape))},
        policy={"half": even},
        value=worth.mean(1),
        lived=2 * worth.mean(1) + 0.1,
    )


def test_a_summary_finds_the_truth_that_it_was_given():
    worth, known = choices(np.random.default_rng(0), noise=1.0)
    found = summarise(known)
    true_gain = (worth.max(1) - worth.mean(1)).mean() / 2
    low, high = found["arms"]["half"]["gain"]["interval"]
    assert low < true_gain < high
    assert low > 0
    assert found["arms"]["same"]["gain"]["mean"] == 0.0
    assert found["arms"]["same"]["changed"] == 0.0
    # Imagined advantages are the true ones and noise of half their size.
    truth = 1 / np.sqrt(1 + 0.5**2)
    said = found["calibration"]["half"]
    assert said["r"] < said["r_corrected"]
    low, high = said["r_corrected_interval"]
    assert low < truth < high
    assert said["verdict"] == "go"
    assert found["critic"]["slope"] == pytest.approx(2.0)


def test_what_noise_alone_chose_earns_nothing():
    """The best of noisy returns looks good in the very returns that it was chosen by."""
    rng = np.random.default_rng(1)
    _, known = choices(rng, noise=1.0)
    nothing = rng.normal(size=known.returns.shape)
    found = summarise(known._replace(returns=nothing))
    low, high = found["base"]["regret"]["interval"]
    assert low < 0 < high
    for row in found["gates"]["half"]["oracle"]:
        assert row["interval"][0] < 0.02
    assert found["calibration"]["half"]["verdict"] != "go"


def test_a_gate_that_knows_keeps_more_than_chance_and_a_coin_does_not():
    _, known = choices(np.random.default_rng(2), noise=0.2, episodes=60)
    curves = summarise(known)["gates"]["half"]
    at = {name: next(row for row in rows if row["share"] == 0.2) for name, rows in curves.items()}
    # The oracle knows one of two noisy futures, the score the truth.
    assert at["knows"]["mean"] > 0.95 * at["oracle"]["mean"] > 1.5 * at["random"]["mean"]
    assert at["knows"]["above_chance"]["interval"][0] > 0
    assert at["coin"]["above_chance"]["interval"][0] < 0


def test_a_gate_opens_for_its_share_and_never_by_a_number_that_is_none():
    doubts = np.array([3.0, np.nan, 1.0, 2.0])
    np.testing.assert_array_equal(opened(doubts, 0.5), [True, False, False, True])
    assert not opened(np.full(4, np.nan), 1.0).any()


@pytest.mark.parametrize(
    ("name", "value"), [("moments", 0), ("futures", 1), ("every", 0), ("horizon", 0)]
)
def test_a_plan_that_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .* got {value}"):
        bank.Plan(**{name: value})


def test_an_agent_that_thinks_has_no_bank(dreamer, tmp_path):
    thinker = Agent(dreamer, Thinking(lag=2))
    with pytest.raises(ValueError, match="does not think"):
        bank.fill(thinker, "CartPole-v1", PLAN, tmp_path / "bank")


def test_there_is_no_bank_where_none_was_filled(tmp_path):
    with pytest.raises(Missing, match="thinkslow bank AGENT"):
        bank.read(tmp_path)


@pytest.fixture(scope="module")
def cart() -> Agent:
    """An agent that balances no pole."""
    model = tiny_dreamer(
        observations={"vector": Space((4,), "float32")},
        actions={"action": Space((), "int32", 2)},
    )
    return Agent(model, about=About(name="cart"))


@pytest.fixture
def older(cart, tmp_path, monkeypatch) -> Path:
    """An empty bank that an older JAX began."""
    now = provenance()
    with monkeypatch.context() as then:
        then.setattr(filling, "provenance", lambda: {"versions": now["versions"] | {"jax": "0.1"}})
        header = filling._header(cart, described_environment("CartPole-v1"), PLAN)
    begin(tmp_path, as_read(header))
    return tmp_path


def test_a_bank_is_filled_by_one_version_and_judged_by_any(cart, older):
    """Another JAX, or other settings of it, went on with a bank, and nothing told."""
    with pytest.raises(Occupied, match=r"its versions differ \(jax is 0.1, not "):
        bank.fill(cart, "CartPole-v1", PLAN, older)
    full = {"files": {"00000-0000": {"moments": PLAN.moments, "sha256": ""}}}
    write_json(older / "index.json", full, format=1)
    assert len(bank.fill(cart, "CartPole-v1", PLAN, older)) == PLAN.moments


def test_a_bank_is_held_while_its_arms_are_judged(cart, older):
    """What was judged for minutes was lost if another command filled the bank meanwhile."""
    full = {"files": {"00000-0000": {"moments": PLAN.moments, "sha256": ""}}}
    write_json(older / "index.json", full, format=1)
    with (
        bank.filled(cart, "CartPole-v1", PLAN, older),
        pytest.raises(lock.Locked, match="is in use"),
    ):
        lock.claim(older)
    lock.claim(older).release()


class Stop(Exception):
    pass


def stop_at(number: int):
    def show(what: str, done: int, total: int) -> None:
        if done >= number:
            raise Stop

    return show


@pytest.mark.slow
def test_a_bank_is_the_same_however_often_it_was_interrupted(cart, tmp_path):
    whole = bank.fill(cart, "CartPole-v1", PLAN, tmp_path / "whole")
    part = tmp_path / "part"
    for number in (2, 4):
        with pytest.raises(Stop):
            bank.fill(cart, "CartPole-v1", PLAN, part, show=stop_at(number))
    again = bank.fill(cart, "CartPole-v1", PLAN, part)
    assert whole.index == again.index
    assert len(bank.read(part)) >= PLAN.moments
    # The reward of CartPole is 1 a decision: a play-out is worth what it survived.
    for moments in again.parts():
        assert moments.actions.shape == (len(moments), 2, 2)
        alive = moments.ended == 0
        assert (moments.rewards.sum(-1)[alive] == PLAN.horizon).all()
        assert (moments.rewards.sum(-1) >= 1).all()
        assert (moments.value_end[moments.ended == 1] == 0).all()
        assert np.isfinite(moments.value).all()
    with pytest.raises(Occupied, match="every is 3, not 4"):
        bank.fill(cart, "CartPole-v1", bank.Plan(every=4, batch=2), part)
    name = next(iter(again.index))
    file = part / "moments" / f"{name}.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(Damaged, match="not what was written"):
        list(bank.read(part).parts())
    (part / "index.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(Damaged, match="format 1"):
        bank.read(part)


@pytest.mark.slow
def test_a_bank_ends_where_no_moment_can_be_restored(dreamer, tmp_path, monkeypatch):
    """It played for ever, and stored files of no moments."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    plan = dataclasses.replace(PLAN, moments=2, batch=1)
    environment = {"id": "counting:thinkslow-test/Unseeded-v0", "size": 16}
    with pytest.raises(ValueError, match=r"no moment of 3 blocks: NotReplayed.*reset\(seed"):
        bank.fill(Agent(dreamer), environment, plan, tmp_path / "bank")


def test_a_round_of_which_nothing_was_kept_is_no_part(tmp_path):
    """Judging it ended with an IndexError."""
    arrays = {
        "episode": np.arange(2),
        "environment_seed": np.arange(2),
        "decision": np.arange(2),
        "is_first": np.zeros(2, bool),
        "actions": np.zeros((2, 2, 2)),
        "rewards": np.zeros((2, 2, 2, 3)),
        "ended": np.zeros((2, 2, 2), np.uint8),
        "value": np.zeros(2),
        "value_end": np.zeros((2, 2, 2)),
    }
    headers: dict[str, Any] = {
        "environment": {"id": "CartPole-v1"},
        "agent": {"name": "a"},
        "candidates": 2,
        "enumerated": True,
        "versions": {},
    }
    plan: dict[str, Any] = {"seed": 0, "every": 3, "futures": 2, "horizon": 3, "batch": 2}
    kept = begin(tmp_path, Header(**headers, **plan))
    kept.add("00000-0000", Moments.from_arrays({k: array[:0] for k, array in arrays.items()}))
    kept.add("00001-0000", Moments.from_arrays(arrays))
    assert [len(part) for part in bank.read(tmp_path).parts()] == [2]


class Still(VectorEnv):
    """Two environments that come back to any moment and go on for ever, but `goes_wrong` says what
    the third step after a moment gives: a failure, or a reward of NaN. With `lost`, the second one
    ends before the first moment, and it cannot be brought to the moment of another.
    """

    def __init__(self, goes_wrong: str, *, lost: bool):
        self.id, self.count = "Still-v0", 2
        model = made(Recurrent)
        self.observation_space = dict(model.observation_spaces)
        self.action_spaces = dict(model.action_spaces)
        self.goes_wrong, self.lost, self.time = goes_wrong, lost, 0

    def close(self) -> None:
        """There is no process."""

    def reset(self, seeds: Any = None) -> Step:
        return self._step()

    def snapshot(self) -> list[Any]:
        kept = Snapshot(0, (), "", "", {}, None)
        return [kept, None if self.lost else kept]

    def resume(self, snapshots: Any) -> Step:
        self.time = 0
        return self._step(np.array([False, self.lost]), cause="the window is gone")

    def step(self, actions: Any, *, playing: Any = None) -> Step:
        self.time += 1
        if self.time < 3:
            return self._step(over=np.array([False, self.lost]), reward=1.0)
        if self.goes_wrong == "reward":
            return self._step(reward=np.nan)
        return self._step(playing, cause="the door is gone")

    def _step(
        self, failed: Any = False, *, over: Any = False, reward: float = 0.0, cause: str = ""
    ) -> Step:
        one, none = Failure("step", "LookupError", cause), np.zeros(2, bool)
        return Step(
            {"numbers": np.zeros((2, 2), np.float32)},
            np.full(2, reward, np.float32),
            *(none, none | failed | over, none, none | failed),
            tuple(one if fails else None for fails in none | failed),
        )


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize(
    ("goes_wrong", "cause"),
    [
        ("step", r"LookupError: the door is gone \(in `step`\)"),
        ("reward", "a reward was non-finite"),
    ],
)
def test_a_play_out_that_fails_or_has_no_value_costs_its_moment(
    goes_wrong, cause, lost, tmp_path, monkeypatch
):
    """A reward of NaN counted as 0, filling never ended where every play-out failed, and the
    failure of an environment that had no moment to lose was called the cause.
    """
    envs = Still(goes_wrong, lost=lost)
    monkeypatch.setattr(filling, "VectorEnv", lambda **_: envs)
    agent = Agent(made(Recurrent))
    with pytest.raises(ValueError, match=f"Still-v0 could keep no moment of 3 blocks: {cause}"):
        bank.fill(agent, "Still-v0", PLAN, tmp_path / "bank")


@pytest.mark.slow
def test_arms_are_judged_where_they_differ_and_nowhere_else(cart, tmp_path):
    filled = bank.fill(cart, "CartPole-v1", PLAN, tmp_path / "bank")
    arms = {
        "none": cart,
        "still": cart.thinking("values:latents=2:horizon=1:max_kl=0:scale=1"),
        "free": cart.thinking("values:latents=2:horizon=1:max_kl=9:temperature=1e-3:scale=1"),
    }
    found = bank.judge(filled, arms, draws=2)
    assert (found.changed["still"] == 0).all()
    np.testing.assert_allclose(found.shifts["still"], 0.0, atol=1e-6)
    assert (found.changed["free"] > 0).any()
    np.testing.assert_allclose(found.shifts["free"].sum(1), 0.0, atol=1e-5)
    assert found.imagined["free"].shape == (len(filled), 2)
    summary = json.loads(json.dumps(summarise(found), allow_nan=False))
    assert summary["arms"]["still"]["gain"]["mean"] == pytest.approx(0.0, abs=1e-5)
    with pytest.raises(ValueError, match="more of the past"):
        bank.judge(filled, {"none": cart, "lag": cart.having(Thinking(lag=2))})


def test_the_printed_tables_have_every_number_below_its_title(monkeypatch):
    """The critic's table lacked its first cell, so that each number stood under another title."""
    row = {"mean": 1.5e-6, "interval": [1e-6, 2e-6]}
    arm = {"gain": row, "changed": 0.25}
    shares = [{"share": share, "mean": 1e-6 * share} for share in (0.1, 1.0)]
    known = {"r": 0.25, "r_interval": [0.1, 0.4], "r_corrected": None, "verdict": "open"}
    summary = {
        "base": {"value": row, "regret": row},
        "arms": {"values": arm},
        "calibration": {"values": known},
        "critic": {"r": 0.5, "slope": 2.0, "bias": row},
        "gates": {"values": {"policy-information": shares}},
    }
    said = scope({"moments": 1, "episodes": 30})
    assert said.startswith("1 moment of 30 episodes; 95% intervals")
    made = tables(summary)
    for table in made:
        assert all(list(column.cells) and all(column.cells) for column in table.columns)
    critic = {str(column.header): next(iter(column.cells)) for column in made[2].columns}
    assert critic["slope"] == "+2.00"
    assert critic["critic too high by"] == "+1.50e-6 [1.00e-6, 2.00e-6]"
    monkeypatch.setenv("COLUMNS", "24")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        for table in made:
            output().print(table)
    assert "…" not in out.getvalue()


def test_a_terminal_breaks_no_number_of_a_gate(monkeypatch):
    """+9.15e-10, which is what rounding left of 0, was printed as +9.15e-1 above a 0."""
    shares = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
    curves = {
        "policy-information": [{"share": share, "mean": 0.00679 * share} for share in shares],
        "random": [{"share": share, "mean": -9.15e-10} for share in shares],
    }
    parts = {"base": None, "arms": {}, "calibration": {}, "critic": None}
    (table,) = tables({**parts, "gates": {"values": curves}})
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        output().print(table)
    printed = [word for line in out.getvalue().splitlines() for word in line.split("│")]
    numbers = [word.strip() for word in printed if re.match(r" *[+-]?\d", word)]
    kept = ["+0.0003", "+0.0007", "+0.0014", "+0.002", "+0.0034", "+0.0068"]
    assert numbers == [*kept, *["+0"] * 6]
