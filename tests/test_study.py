"""Studies: what a plan may say, that tasks are played in any order, and what verdicts follow."""

import contextlib
import dataclasses
import functools
import json
import operator
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import gymnasium
import jax.random as jr
import numpy as np
import odd_episodes
import pytest
import studies
from helpers import codes, smallest_config

from thinkslow.agent.abstract import About
from thinkslow.agent.agent import Agent
from thinkslow.cli import main
from thinkslow.dreamer.model import Dreamer
from thinkslow.envs import make
from thinkslow.evaluation import records
from thinkslow.evaluation.records import Episode, Header, Records
from thinkslow.saved import folder as checkpoint
from thinkslow.spaces import Space
from thinkslow.storage import lock
from thinkslow.storage.faults import Damaged
from thinkslow.study import Another, Misplanned, finish, planned, read, shipped
from thinkslow.study.executors import Failing, local
from thinkslow.study.rehearsal import keep, known, longest, rehearse
from thinkslow.study.run import begin, joined, run
from thinkslow.study.tasks import arms_of, block_seed, environment, found, playing, tasks
from thinkslow.study.verdicts import judge

PLAN: dict[str, Any] = {
    "format": 1,
    "name": "small",
    "question": "Does it help?",
    "episodes": 4,
    "block": 2,
    "arms": ["control-soft", {"name": "twice", "arm": "evidence", "steps": 2}],
    "agents": {"ours": "collect-half", "others": ["collect-good"]},
    "settings": {"clean": {}, "noisy": {"shift": "noise:3", "agents": ["ours"]}},
    "hypotheses": [{"name": "H", "claim": "It does.", "effect": {"arm": "twice"}}],
}


H = PLAN["hypotheses"][0]


@pytest.mark.parametrize("more", [{"id": "unheard_of:Env-v0"}, {"wrappers": ["unheard_of:One"]}])
def test_a_module_that_only_the_files_of_an_agent_name_is_not_imported(more):
    place = {"id": "CartPole-v1", "size": 64, "repeat": 1, **more}
    agent = Agent(codes(), about=About(name="theirs", environment=place))
    with pytest.raises(Misplanned, match=r"theirs ask to import a module.*`env`"):
        environment(planned(PLAN, "plan.toml"), agent, "clean")
    own = {**PLAN, "settings": {"clean": {"env": "unheard_of:mine"}}}
    chosen = environment(planned(own, "plan.toml"), agent, "clean")
    assert chosen == {"id": "unheard_of:mine", "size": 64, "repeat": 1}


def test_every_plan_that_is_shipped_can_be_made():
    assert len(shipped()) >= 9
    for name in shipped():
        plan = read(name)
        assert plan.name == name
        assert plan.hypotheses
        assert next(iter(arms_of(plan))) == "none"


def test_the_plan_that_the_documents_show_is_one():
    text = (Path(__file__).parents[1] / "docs" / "studies.md").read_text()
    (shown,) = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    plan = planned(tomllib.loads(shown), "docs/studies.md")
    assert [one.name for one in plan.hypotheses] == ["H1", "H2"]
    assert plan.group("trained").budget == 60000
    assert arms_of(plan)["evidence-10"].thinking.steps == 10


def test_every_claim_is_a_hypothesis_of_a_plan_that_is_shipped():
    names = {name: [one.name for one in read(name).hypotheses] for name in shipped()}
    text = (Path(__file__).parents[1] / "docs" / "studies.md").read_text()
    rows = re.findall(r"^\| ([CH]\d): .*? \| (`.*?) \| (.*) \|$", text, flags=re.MULTILINE)
    assert [claim for claim, *_ in rows] == [f"{kind}{n}" for kind in "CH" for n in range(1, 6)]
    for claim, plans, hypotheses in rows:
        played = [each for plan in re.findall(r"`(.*?)`", plans) for each in names[plan]]
        own = [each for each in played if each.partition(",")[0] == claim]
        assert sorted(hypotheses.split("; ")) == sorted(own)
        assert own


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    path = shipped()["quick"]
    assert read(path).file_hash == read("quick").file_hash
    changed = tmp_path / "quick.toml"
    changed.write_text(path.read_text() + "# a remark\n")
    assert read(changed).file_hash != read("quick").file_hash
    assert read(changed).hash == read("quick").hash


@pytest.mark.parametrize("name", ["evaluation.json", "episodes.jsonl", "report.html"])
def test_a_study_does_not_overwrite_another_result(tmp_path, name):
    """In the folder of an evaluation it replaced the episodes and the page."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(Another, match=f"holds {name} of another result"):
        run(read("quick"), tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_folder_with_the_name_of_a_shipped_plan_does_not_hide_it(tmp_path, monkeypatch):
    """The study of that name could not be run beside its results, and said to remove them."""
    monkeypatch.chdir(tmp_path)
    Path("quick").mkdir()
    assert read("quick").name == "quick"
    Path("mine").mkdir()
    with pytest.raises(FileNotFoundError, match="'mine' is a folder"):
        read("mine")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"episodess": 3}, r"no `episodess`.*episodes"),
        ({"arms": ["sig-33"]}, r"'sig-33'.*sig-3"),
        ({"arms": []}, r"`arms`.*none"),
        ({"arms": ["sig-3", "sig-3"]}, "'sig-3' comes twice"),
        ({"episodes": 5}, "multiple of `block`, 2; got 5"),
        ({"episodes": "4"}, "`episodes` must be a whole number; got '4'"),
        ({"agents": {}}, "`agents` .*none"),
        ({"settings": {"clean": {"agents": ["theirs"]}}}, "no group 'theirs'.*others"),
        ({"settings": {"clean": {"shifft": "noise:3"}}}, "setting clean.*no `shifft`.*shift"),
        ({"purpose": "fun"}, "report, tuning; got 'fun'"),
        ({"format": 2}, "`format` must be 1; got 2"),
        ({"hypotheses": [{"name": "H"}]}, "hypothesis 1: `claim` is missing"),
        ({"hypotheses": [{**PLAN["hypotheses"][0], "effect": {"arm": "twce"}}]}, "'twce'.*twice"),
        ({"hypotheses": [PLAN["hypotheses"][0]] * 2}, "'H' comes twice"),
        ({"outcome": "scroe"}, "'scroe'.*score"),
        ({"hypotheses": [H | {"measure": "psnrr"}]}, "hypothesis 1: `measure`.*'psnrr'.*psnr"),
        ({"hypotheses": [H | {"measure": "belief_kl"}]}, "`measure` must be.*'belief_kl'"),
        ({"hypotheses": [H | {"by": 1.5}]}, "`by` must be between 0 and 1; got 1.5"),
        ({"hypotheses": [H | {"of": "spraed"}]}, "mean, spread; got 'spraed'"),
        ({"hypotheses": [H | {"of": "spread", "measure": "psnr"}]}, "psnr is compared frame"),
        ({"hypotheses": [H | {"effect": {"arm": "none"}}]}, "an arm with itself"),
        ({"hypotheses": [H | {"effect": {"arm": "twice", "baseline_setting": "nosy"}}]}, "noisy"),
        ({"looks": [4]}, "`looks` must be .*5, 8, 12; got 4"),
        ({"tuned_on": ["1"]}, "`tuned_on` must be a list of whole numbers"),
        ({"purpose": "tuning"}, "`tuned_on` must name"),
        ({"settings": {}}, "`settings` must name one or more"),
        ({"settings": {"clean": {"agents": []}}}, "setting clean: `agents` must name"),
        ({"settings": {"a/b": {}}}, "letters.*'a/b'"),
        ({"agents": {"ours": {"runs": "runs/*", "buget": 9}}}, "`budget` is missing"),
        ({"agents": {"ours": {"budget": 9}}}, "`runs` with a `budget`"),
        ({"name": "../../mine"}, "`name`: .*as a folder is called so; got '../../mine'"),
        ({"episodes": 8 * 10**12}, "`episodes` must be at most 1,000,000; got 8000000000000"),
    ],
)
def test_what_a_plan_cannot_mean_is_refused_before_anything_is_played(change, said):
    with pytest.raises(Misplanned, match=said):
        planned(PLAN | change, "plan.toml")


@pytest.mark.parametrize("content", ["x = " + "[" * 5000, f"seed = {'1' * 5000}", "\0", "{}"])
def test_what_is_not_toml_is_said(tmp_path, content):
    """Deep lists and long integers were an error of the reader, without the file's name."""
    path = tmp_path / "plan.toml"
    path.write_text(content)
    with pytest.raises(Misplanned, match=r"plan\.toml is not TOML: "):
        read(path)


def test_a_plan_may_begin_with_a_byte_order_mark(tmp_path):
    """As the editor of Windows writes it."""
    path = tmp_path / "plan.toml"
    path.write_bytes(b"\xef\xbb\xbf" + shipped()["quick"].read_bytes())
    assert read(path).hash == read("quick").hash


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"arm": "evidence", "stepps": 2}, "Arm evidence: .*'stepps'.*steps"),
        ({"arm": "evidence", "steps": -1}, "steps.*-1"),
        ({"arm": "evidence", "update": "gradiant"}, "'gradiant'.*gradient"),
    ],
)
def test_an_arm_that_cannot_be_made_is_refused(arm, said):
    with pytest.raises(Misplanned, match=said):
        arms_of(planned(PLAN | {"arms": [arm], "hypotheses": []}, "plan.toml"))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"shift": "drpped:3"}, "Setting clean: There is no shift 'drpped'.*dropped"),
        ({"shift": "dropped:9"}, "Setting clean: .*severity 0 to 5.*'dropped:9'"),
        ({"env": "CartPol-v1"}, "Setting clean: There is no environment 'CartPol-v1'.*CartPole-v1"),
        ({"env": "no_module_so_named:X"}, "Setting clean: There is no module no_module_so_named"),
    ],
)
def test_a_shift_or_environment_that_there_is_not_is_refused_at_once(setting, said):
    """The dry run showed it as sound, and the study said it after minutes of other settings."""
    plan = planned(PLAN | {"settings": {"clean": setting}, "hypotheses": []}, "plan.toml")
    with pytest.raises(Misplanned, match=said):
        playing(plan)


def test_an_arm_that_cannot_be_made_is_refused_by_a_dry_run(tmp_path):
    arms = {"arms": [{"arm": "evidence", "stepps": 2}], "hypotheses": []}
    with pytest.raises(Misplanned, match=r"Arm evidence: .*'stepps'.*steps"):
        known(planned(PLAN | arms, "plan.toml"), tmp_path)


def test_a_plan_is_known_by_what_it_says():
    first = planned(PLAN, "here.toml")
    assert planned(json.loads(json.dumps(PLAN)), "there.toml").hash == first.hash
    assert planned(PLAN | {"seed": 1}, "here.toml").hash != first.hash
    other = planned(PLAN, "here.toml", {"ours": ["collect-early"]})
    assert other.group("ours").agents == ("collect-early",)
    assert other.hash != first.hash


def test_tasks_are_blocks_of_every_agent_in_every_setting():
    plan = planned(PLAN, "plan.toml")
    todo = tasks(plan, found(plan))
    assert len(todo) == 2 * (2 + 1)
    assert len({task.folder for task in todo}) == len(todo)


def test_seeds_of_tuning_are_none_of_a_report():
    report = planned(PLAN, "plan.toml")
    tuning = planned(PLAN | {"purpose": "tuning", "tuned_on": [1]}, "plan.toml")
    seeds = [[block_seed(plan, block) for block in range(500)] for plan in (report, tuning)]
    assert len({*seeds[0], *seeds[1]}) == 1000
    assert [{seed % 2 for seed in some} for some in seeds] == [{0}, {1}]  # whatever is drawn
    assert max(*seeds[0], *seeds[1]) < 2**31


def test_a_group_of_runs_has_the_agents_of_its_budget(tmp_path):
    for name in ("one", "two"):
        for steps in (10, 20):
            (tmp_path / name / "agents" / str(steps)).mkdir(parents=True)
    group = {"runs": f"{tmp_path}/*", "budget": 20}
    plan = planned(PLAN | {"agents": {"ours": group}, "settings": {"clean": {}}}, "plan.toml")
    agents = found(plan)
    assert list(agents["ours"].values()) == [
        str(tmp_path / name / "agents" / "20") for name in ("one", "two")
    ]


def test_a_study_whose_folder_is_moved_says_so_and_begins_no_other(tmp_path):
    """It tried the task three times, named a missing file, and left a folder with a log behind."""
    task = tasks(plan := planned(PLAN, "plan.toml"), found(plan))[0]
    place = tmp_path / "study"

    def moved() -> None:
        with lock.writing(place):
            place.rename(tmp_path / "moved")
            local(place, [task], 1, lambda: None)

    with pytest.raises(lock.Lost, match="continue in its new place"):
        moved()
    assert not place.exists()


def test_a_study_is_played_with_one_version_of_the_libraries(tmp_path):
    """Another JAX, or other settings of it, went on with a study, and nothing told."""
    plan = planned(PLAN, "plan.toml")
    begin(plan, tmp_path)
    begin(plan, tmp_path)
    path = tmp_path / "study.json"
    stored = json.loads(path.read_text())
    stored["versions"] |= {"jax_default_prng_impl": "rbg"}
    path.write_text(json.dumps(stored))
    with pytest.raises(Another, match="settings of JAX: jax_default_prng_impl is rbg, not None"):
        begin(plan, tmp_path)


def test_what_differs_between_two_plans_is_said(tmp_path):
    """Two hashes were all that was told where `--agents` gave another path of the same agent."""
    begin(planned(PLAN, "plan.toml"), tmp_path)
    moved = planned(PLAN | {"seed": 3}, "other.toml", {"others": ["collect-early"]})
    with pytest.raises(Another, match=r", with other seed, groups\. Give another folder"):
        begin(moved, tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("versions", {"thinkslow": "0.2.0"}, r"versions differ \(thinkslow is 0.1.0, not 0.2.0\)"),
        ("agents", [{"name": "partial-0", "weights": "other"}], "weights of partial-0"),
    ],
)
def test_blocks_of_other_weights_or_versions_are_not_put_together(tmp_path, name, value, said):
    """An agent that was trained anew between two commands, or a node with another JAX."""
    studies.folder(tmp_path / "study", studies.QUICK)
    place = tmp_path / "study/blocks/partial/clean/partial-0/001"
    header = records.read(place).header
    records.write_header(place, dataclasses.replace(header, **{name: value}))
    with pytest.raises(Another, match=rf"Blocks 0 and 1 of partial-0 in clean .*{said}.*Delete"):
        finish(tmp_path / "study")


def test_a_group_that_fits_nothing_is_refused():
    with pytest.raises(Misplanned, match=r"Agents of ours: .*runs/nothing-\*"):
        found(planned(PLAN, "plan.toml", {"ours": ["runs/nothing-*"]}))


def test_what_is_no_agent_is_named_before_anything_is_played(tmp_path):
    """A run's folder passed, and the forecast played for minutes before it failed."""
    run = tmp_path / "runs" / "one"
    (run / "agents" / "20").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    for given, said in ((run, "is a training run"), (run / "agents" / "20", "none yet")):
        plan = planned(PLAN, "plan.toml", {"ours": [str(given)]})
        with pytest.raises(Misplanned, match=f"Agents of ours: .*{said}"):
            playing(plan)


def test_a_folder_in_place_of_a_plan_is_not_to_be_removed(tmp_path):
    """The results of a study were `to be moved or removed`."""
    with pytest.raises(FileNotFoundError, match="rebuild a page: thinkslow report"):
        read(tmp_path)


def episode(arm: str, agent: str, number: int, score: float) -> Episode:
    rest = {
        name: None
        for name in records.FIELDS
        if name not in ("agent", "arm", "episode", "environment_seed", "score")
    }
    given: dict[str, Any] = rest | {
        "crashed": False,
        "cut": False,
        "nonfinite": 0,
        "first_observation": "",
        "length": 9,
    }
    return Episode(
        agent=agent, arm=arm, episode=number, environment_seed=number, score=score, **given
    )


def played(
    effects: dict[str, float],
    *,
    agents: int = 1,
    pairs: int = 40,
    seed: int = 0,
    level: float = 10,
    luck: float = 0.0,
    spread: dict[str, float] | None = None,
    by_agent: Any = None,
):
    """Records in which each arm scores the level, its effect more, and noise.

    Args:
        luck: deviation of the episodes' own level, the same in every arm and call.
        spread: of the noise of an arm; 1 for those without one.
        by_agent: what each agent adds to the effect of an arm.
    """
    rng, lucky = np.random.default_rng(seed), np.random.default_rng(99).normal(size=pairs)
    header = Header(
        protocol="",
        environment={},
        agents=[],
        arms=[],
        episodes=pairs,
        seed=0,
        batch=2,
        max_decisions=None,
        pool=False,
        versions={},
        images={},
        curves={},
        sittings=[],
    )
    own = np.zeros(agents) if by_agent is None else by_agent
    return Records(
        header,
        [
            episode(
                arm,
                f"agent {agent}",
                number,
                level
                + effect
                + (arm != "none") * own[agent]
                + luck * lucky[number]
                + (spread or {}).get(arm, 1.0) * rng.normal(),
            )
            for arm, effect in {"none": 0.0, **effects}.items()
            for agent in range(agents)
            for number in range(pairs)
        ],
    )


def verdicts(hypotheses: list[dict[str, Any]], cells: dict, **more: Any) -> list[str]:
    named = [{"name": f"H{at}", "claim": "", **one} for at, one in enumerate(hypotheses)]
    plan = planned(PLAN | {"hypotheses": named} | more, "plan.toml")
    return [one.verdict for one in judge(plan, cells)]


@pytest.mark.parametrize(
    ("effect", "expect", "verdict"),
    [
        (2.0, "more", "supported"),
        (2.0, "less", "contradicted"),
        (-2.0, "less", "supported"),
        (2.0, "same", "contradicted"),
        (0.0, "same", "supported"),
        # none, and that within 5% of the score
        (0.0, "more", "contradicted"),
    ],
)
def test_a_verdict_follows_the_effect(effect, expect, verdict):
    cells = {("ours", "clean"): played({"twice": effect}, pairs=400)}
    assert verdicts([{"effect": {"arm": "twice"}, "expect": expect}], cells) == [verdict]


def test_few_episodes_show_nothing_and_say_what_would_be_found():
    cells = {("ours", "clean"): played({"twice": 0.1}, pairs=20)}
    plan = planned(PLAN, "plan.toml")
    (one,) = judge(plan, cells)
    assert one.verdict == "not shown"
    assert one.detectable is not None
    assert 0.3 < one.detectable < 2
    assert f"{one.detectable:.3g}" in one.why


def test_a_difference_of_effects_is_judged_between_settings():
    hypothesis = {
        "effect": {"arm": "twice", "setting": "noisy"},
        "minus": {"arm": "twice", "setting": "clean"},
    }
    cells = {
        ("ours", "noisy"): played({"twice": 3.0}),
        ("ours", "clean"): played({"twice": 0.0}, seed=1),
    }
    assert verdicts([hypothesis], cells) == ["supported"]
    assert verdicts([hypothesis | {"expect": "less"}], cells) == ["contradicted"]
    same = dict.fromkeys(cells, played({"twice": 3.0}))
    assert verdicts([hypothesis], same) == ["not shown"]


def test_training_seeds_are_the_units_and_few_are_no_test():
    hypothesis = [{"effect": {"arm": "twice"}}]
    three = {("ours", "clean"): played({"twice": 3.0}, agents=3)}
    assert verdicts(hypothesis, three) == ["not shown"]
    eight = {("ours", "clean"): played({"twice": 3.0}, agents=8)}
    assert verdicts(hypothesis, eight) == ["supported"]
    assert verdicts(hypothesis, eight, looks=[5, 8, 12]) == ["supported"]
    assert verdicts(hypothesis, eight, looks=[5, 12]) == ["not shown"]


@pytest.mark.slow
def test_without_an_effect_a_study_of_four_claims_rarely_supports_one():
    """One of them at its own bound: 10% more, where an effect of more than 10% is claimed."""
    hypotheses = [{"effect": {"arm": "twice"}, "expect": each} for each in ("more", "less")]
    hypotheses.append({"effect": {"arm": "control-soft"}, "by": 0.1})
    hypotheses.append({"effect": {"arm": "control-soft", "baseline": "twice"}, "of": "spread"})
    wrong = 0
    for seed in range(60):
        effects = {"twice": 0.0, "control-soft": 1.0}
        cells = {("ours", "clean"): played(effects, pairs=12, seed=seed)}
        wrong += "supported" in verdicts(hypotheses, cells)
    assert wrong <= 8  # of 60 at 5% one expects 3, and more than 8 once in 200


@pytest.mark.slow
def test_a_claim_of_sameness_at_its_margin_is_rarely_supported_among_others():
    hypotheses = [
        {"effect": {"arm": "twice"}, "expect": "same"},
        {"effect": {"arm": "control-soft"}},
    ]
    wrong = 0
    for seed in range(60):
        cells = {("ours", "clean"): played({"twice": 0.5, "control-soft": 0.0}, seed=seed)}
        wrong += "supported" in verdicts(hypotheses, cells)
    assert wrong <= 8


@pytest.mark.parametrize(("effect", "verdict"), [(2.0, "supported"), (0.5, "contradicted")])
def test_an_effect_can_be_claimed_to_be_larger_than_a_share(effect, verdict):
    cells = {("ours", "clean"): played({"twice": effect}, pairs=400)}
    assert verdicts([{"effect": {"arm": "twice"}, "by": 0.1}], cells) == [verdict]
    worse = {("ours", "clean"): played({"twice": -effect}, pairs=400)}
    less = {"effect": {"arm": "twice"}, "by": 0.1, "expect": "less"}
    assert verdicts([less], worse) == [verdict]


def test_a_larger_spread_is_no_larger_mean():
    cells = {("ours", "clean"): played({"twice": 0.0}, pairs=200, spread={"twice": 3.0})}
    of_spread = {"effect": {"arm": "twice"}, "of": "spread"}
    assert verdicts([of_spread, {"effect": {"arm": "twice"}}], cells)[0] == "supported"
    plan = planned(PLAN | {"hypotheses": [{"name": "H", "claim": "", **of_spread}]}, "")
    (one,) = judge(plan, cells)
    assert one.difference == pytest.approx(2 * 0.8, abs=0.4)  # E|x| of a normal is .8 deviations


def test_half_of_a_loss_is_won_back_between_settings_episode_by_episode():
    """The task's own luck, the same in both settings, is no noise of such a claim."""
    regained = {
        "effect": {"arm": "twice", "setting": "noisy"},
        "minus": {"arm": "none", "setting": "clean", "baseline_setting": "noisy", "times": 0.5},
    }
    for effect, verdict in ((3.5, "supported"), (0.5, "contradicted")):
        cells = {
            ("ours", "clean"): played({"twice": 0.0}, level=10, luck=5.0),
            ("ours", "noisy"): played({"twice": effect}, level=6, luck=5.0, seed=1),
        }
        assert verdicts([regained], cells) == [verdict]
    plan = planned(PLAN | {"hypotheses": [{"name": "H", "claim": "", **regained}]}, "")
    (one,) = judge(plan, cells)
    assert (one.pairs, one.units) == (40, 40)
    assert one.difference == pytest.approx(0.5 - 0.5 * 4, abs=0.8)


@pytest.mark.slow
def test_the_interval_of_a_difference_of_effects_of_the_same_seeds_covers():
    """Training seeds differ in level and in effect, and both settings share them."""
    hypothesis = {
        "name": "H",
        "claim": "",
        "effect": {"arm": "twice", "setting": "noisy"},
        "minus": {"arm": "twice", "setting": "clean"},
    }
    plan, hits = planned(PLAN | {"hypotheses": [hypothesis]}, ""), 0
    for seed in range(200):
        shared = np.random.default_rng([1, seed]).normal(size=6)
        cells = {
            ("ours", name): played(
                {"twice": 1.0}, agents=6, pairs=3, seed=2 * seed + at, by_agent=shared
            )
            for at, name in enumerate(("clean", "noisy"))
        }
        (one,) = judge(plan, cells)
        assert one.interval is not None
        hits += one.interval[0] <= 0 <= one.interval[1]
    assert 0.9 < hits / 200 < 0.99  # a deviation is .015


def test_what_was_not_played_counts_among_the_hypotheses_that_are_corrected():
    hypotheses = [{"effect": {"arm": "twice"}}, {"effect": {"arm": "twice", "setting": "noisy"}}]
    named = [{"name": f"H{at}", "claim": "", **one} for at, one in enumerate(hypotheses)]
    plan = planned(PLAN | {"hypotheses": named}, "plan.toml")
    first, second = judge(plan, {("ours", "clean"): played({"twice": 0.5})})
    assert first.p_value is not None
    assert first.p_value_holm == pytest.approx(2 * first.p_value)
    assert (second.verdict, second.p_value) == ("not shown", None)


def test_power_is_of_five_percent_of_the_baseline():
    cells = {("ours", "clean"): played({"twice": 0.0}, pairs=60)}
    (one,) = judge(planned(PLAN, "plan.toml"), cells)
    assert one.baseline == pytest.approx(10, abs=0.5)
    assert one.deviation == pytest.approx(2**0.5, abs=0.4)
    # 0.5 of a deviation of 1.41 over 60 pairs: 2.74 standard errors, 0.74 above the bound
    assert one.power == pytest.approx(0.77, abs=0.12)
    assert one.detectable == pytest.approx(0.52, abs=0.12)


def test_pairs_that_crashed_are_left_out_and_counted():
    whole = played({"twice": 3.0})
    rows = [*whole.episodes]
    rows[0] = episode("none", "agent 0", 0, 0.0)
    object.__setattr__(rows[0], "crashed", True)
    plan = planned(PLAN, "plan.toml")
    (one,) = judge(plan, {("ours", "clean"): Records(whole.header, rows)})
    assert (one.pairs, one.dropped) == (39, 1)


COUNTING = "counting:thinkslow-test/Counting-v0"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A plan of two tiny agents on a tiny environment."""
    monkeypatch.setenv("PYTHONPATH", odd_episodes.importable())
    for seed in (1, 2):
        model = Dreamer(
            {"image": Space((16, 16, 3), "uint8")},
            {"action": Space((), "int32", 3)},
            smallest_config(),
            key=jr.key(seed),
        )
        checkpoint.save(
            tmp_path / f"agent-{seed}",
            model,
            name=f"agent-{seed}",
            environment={"id": COUNTING, "size": 16, "repeat": 1},
            training={"steps": 7, "seed": seed, "preset": "test"},
        )
    return PLAN | {
        "agents": {"ours": f"{tmp_path}/agent-*"},
        "arms": ["control-soft", "evidence"],
        # An id of a module: the files of an agent may not name one.
        "settings": {"clean": {"env": COUNTING}, "noisy": {"env": COUNTING, "shift": "noise:5"}},
        "hypotheses": [{"name": "H", "claim": "", "effect": {"arm": "evidence"}}],
    }


def table(folder: Path) -> Any:
    """What was played, without the milliseconds and the machine."""
    result = finish(folder)
    rows = [
        {k: v for k, v in row.items() if not k.startswith("latency")}
        for path in sorted((folder / "cells").glob("*/*"))
        for row in records.read(path).rows()
    ]
    return rows, result["hypotheses"]


@pytest.mark.slow
@pytest.mark.nightly
def test_a_killed_study_goes_on_and_says_the_same(small, tmp_path):
    plan = planned(small, "plan.toml")
    whole = run(plan, tmp_path / "whole", jobs=2)
    assert whole["finished"]
    assert len(whole["cells"]) == 2
    assert len(whole["cells"][0]["arms"]) == 3 * 3  # each agent, and both together

    stored = tmp_path / "plan.json"
    stored.write_text(json.dumps(small))
    program = (
        "import sys, json; from pathlib import Path; from thinkslow.study import planned, run\n"
        "run(planned(json.loads(Path(sys.argv[1]).read_text()), ''), Path(sys.argv[2]), jobs=2)"
    )
    killed = tmp_path / "killed"
    for wanted in (1, 3):  # the whole process group, after some blocks
        process = subprocess.Popen(
            [sys.executable, "-c", program, stored, killed], start_new_session=True
        )
        while process.poll() is None and _blocks(killed) < wanted:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    run(plan, killed, jobs=1)
    assert table(killed) == table(tmp_path / "whole")
    assert not subprocess.run(["pgrep", "-f", str(killed)], capture_output=True, check=False).stdout

    with pytest.raises(Another, match=r"plan .*another folder"):
        run(planned(small | {"seed": 5}, "plan.toml"), killed)


def _blocks(folder: Path) -> int:
    return len([*folder.glob("blocks/*/*/*/*/episodes.jsonl")])


@pytest.mark.slow
def test_what_cannot_be_played_ends_the_study_with_its_reason(small, tmp_path):
    plan = planned(small | {"settings": {"clean": {"env": "CartPole-v1"}}}, "plan.toml")
    with pytest.raises(Failing, match=r"does not fit CartPole-v1.*log\.txt"):
        run(plan, tmp_path / "study", jobs=2)


@pytest.mark.parametrize("text", ["", "{", "null", '{"plan": 3}', 10**5 * "["])
def test_a_damaged_study_is_named(tmp_path, text):
    """It was "Expecting value: line 1 column 1", of which nothing was told."""
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(Damaged, match=r"study\.json is"):
        finish(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("plan episodes", "8", "`plan.episodes` must be an integer; got '8'"),
        ("plan looks", [2.5], r"`plan.looks\[0\]` must be an integer; got 2.5"),
        ("plan groups", [{"name": "a"}], r"`plan.groups\[0\]` lacks agents"),
        ("agents", [], r"`agents` must be a mapping; got \[\]"),
    ],
)
def test_a_value_of_another_type_in_a_study_is_named(small, tmp_path, path, value, said):
    """An edited plan ended in an error of Python, far from its file."""
    folder = studies.folder(tmp_path / "study", small, blocks=0)
    content = json.loads((folder / "study.json").read_text())
    *parents, last = path.split()
    functools.reduce(operator.getitem, parents, content)[last] = value
    (folder / "study.json").write_text(json.dumps(content))
    with pytest.raises(Damaged, match=rf"study\.json is no study: {said}.*another folder"):
        finish(folder)


def test_the_length_of_an_episode_is_taken_from_whoever_says_it():
    """Environments that end their episodes themselves counted as a thousand decisions."""

    class Ends(gymnasium.Env):
        max_episode_steps = 250

    class Endless(gymnasium.Env):
        max_episode_steps = float("inf")

    assert longest(Ends()) == 250
    assert longest(Endless()) is None
    assert longest(gymnasium.make("CartPole-v1")) == 500
    with contextlib.closing(make("thinkslow/CollectGoodObjects-v0")) as env:
        assert longest(env.env) == 250


def test_a_dry_run_plays_nothing_and_knows_the_time_of_a_study_that_was_begun(tmp_path, capsys):
    """On a new machine it compiled for minutes."""
    command = ["study", "quick", "--dry-run", "--jobs", "1", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert "not known yet" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "out").exists()
    plan = read("quick")
    times = {"half-trained in its environment": 60.0, "trained in its environment": 90.0}
    (tmp_path / "out").mkdir()
    keep(tmp_path / "out", {"plan": plan.hash, "seconds": times})
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["tasks"], found["episodes"], found["minutes"]) == (4, 128, 5.0)
    for other in (
        {"plan": "another", "seconds": times},
        {"plan": plan.hash, "seconds": [60.0, 90.0]},
        {"plan": plan.hash, "seconds": dict.fromkeys(times, "long")},
    ):
        keep(tmp_path / "out", other)
        assert known(plan, tmp_path / "out")["minutes"] is None


@pytest.mark.slow
def test_the_time_is_told_of_what_is_missing_and_nothing_is_kept(small, tmp_path, monkeypatch):
    settings = {"clean": {"env": COUNTING}, "lost": {"env": COUNTING, "shift": "dropped:3"}}
    plan = planned(small | {"settings": settings, "max_decisions": 6}, "plan.toml")
    told: list[str] = []
    first = rehearse(plan, tmp_path / "study", jobs=1, show=told.append)
    assert (first["tasks"], first["episodes"], first["finished"]) == (8, 48, 0)
    assert 0 < first["minutes"] < 20
    assert told == [f"ours in {COUNTING}"]  # a shift is no other kind of task
    assert not (tmp_path / "study").exists()
    (tmp_path / "study").mkdir()
    keep(tmp_path / "study", first)
    assert known(plan, tmp_path / "study", jobs=1) == first
    assert known(plan, tmp_path / "study", jobs=4)["minutes"] < first["minutes"]
    broken = planned(small | {"settings": {"clean": {"env": "CartPole-v1"}}}, "plan.toml")
    with pytest.raises(ValueError, match="does not fit CartPole-v1"):
        rehearse(broken, tmp_path / "study", jobs=1)
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\necho It began well. >&2; kill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(ValueError, match="in clean: its process was ended by SIGKILL, as"):
        rehearse(plan, tmp_path / "study", jobs=1)


@pytest.mark.slow
def test_an_error_of_the_users_code_in_a_rehearsal_is_told_with_its_line(
    small, tmp_path, monkeypatch
):
    """Only errors whose messages are for users were tested."""
    home = tmp_path / "code"
    home.mkdir()
    (home / "limited.py").write_text(
        "from counting import Counting\n\n\n"
        "class Limited(Counting):\n"
        "    @property\n"
        "    def max_steps(self):\n"
        '        raise KeyError("steps")\n'
    )
    monkeypatch.syspath_prepend(home)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(home), os.environ["PYTHONPATH"]]))
    plan = planned(small | {"settings": {"clean": {"env": "limited:Limited"}}}, "plan.toml")
    told = (
        r"cannot play in clean: KeyError: 'steps' \(in `play`; "
        r"limited\.py:7 in max_steps, your code\)$"
    )
    with pytest.raises(ValueError, match=told):
        rehearse(plan, tmp_path / "study", jobs=1)


@pytest.mark.slow
def test_agents_that_something_was_tuned_on_are_not_reported(small, tmp_path):
    with pytest.raises(Misplanned, match="training seed 2"):
        run(planned(small | {"tuned_on": [2]}, "plan.toml"), tmp_path / "study")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:os.fork")  # Ray forks to start a program, and no more
def test_a_cluster_of_two_nodes_gives_the_same_table(small, tmp_path):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    plan = planned(small, "plan.toml")
    run(plan, tmp_path / "here", jobs=2)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        run(plan, tmp_path / "there", executor="ray", address=cluster.address)
    finally:
        cluster.shutdown()
    assert table(tmp_path / "there") == table(tmp_path / "here")
    assert joined(plan, found(plan), tmp_path / "there")
