"""Plans of studies: what they may say, and what is refused before anything is played."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from helpers import codes
from studies import PLAN, H

from thinkslow.agent.abstract import About
from thinkslow.agent.agent import Agent
from thinkslow.study import Another, Misplanned, planned, read, shipped
from thinkslow.study.rehearsal import known
from thinkslow.study.run import begin
from thinkslow.study.tasks import arms_of, block_seed, environment, found, playing, tasks


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


def test_what_differs_between_two_plans_is_said(tmp_path):
    """Two hashes were all that was told where `--agents` gave another path of the same agent."""
    begin(planned(PLAN, "plan.toml"), tmp_path)
    moved = planned(PLAN | {"seed": 3}, "other.toml", {"others": ["collect-early"]})
    with pytest.raises(Another, match=r", with other seed, groups\. Give another folder"):
        begin(moved, tmp_path)


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
