"""The page, the table and the sentence of an evaluation, on folders as an evaluator writes them."""

import json
import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from rich.console import Console

from thinkslow.evaluation import records, statistics
from thinkslow.evaluation.report.conclusion import conclusion
from thinkslow.evaluation.report.page import build
from thinkslow.evaluation.report.strips import rows
from thinkslow.evaluation.report.table import table
from thinkslow.evaluation.report.text import estimated

ARMS = {
    "none": (0.0, 0.0, "The agent as it was trained."),
    "sig": (0.9, -0.08, "State information gain over a 3-step rollout, 5 steps."),
    "elbo": (0.1, 0.37, "Evidence of the present frame, soft latent, 5 steps."),
    "control-mode": (0.4, 0.27, "The posterior's mode, without refinement."),
    "control-random": (-0.8, -0.2, "A random step that moves the same KL."),
}
AGENTS = {"tiny-8k": 3.0, "tiny-48k": 14.0}


def stat(values: np.ndarray) -> dict[str, Any]:
    found = statistics.mean_interval(values, seed=0, resamples=300)
    return {"mean": found.mean, "interval": list(found.interval)}


def compared(agent: str, arm: str, metric: str, arms: dict[str, Any]) -> dict[str, Any]:
    difference = arms[arm][metric] - arms["none"][metric]
    found = statistics.paired(difference, seed=0, resamples=300)
    return {
        "agent": agent,
        "arm": arm,
        "baseline": "none",
        "metric": metric,
        "difference": found.mean,
        "interval": list(found.interval),
        "trimmed_mean": found.trimmed_mean,
        "trimmed_interval": list(found.trimmed_interval),
        "p_improve": found.p_improve,
        "p_improve_interval": list(found.p_improve_interval),
        "p_value": found.p_value,
        "p_value_holm": min(1.0, 8 * found.p_value),
        "correlation": statistics.correlation(arms["none"][metric], arms[arm][metric]),
        "pairs": found.pairs,
        "unit": found.unit,
    }


def frames(rng: np.random.Generator, *lead: int) -> np.ndarray:
    """Rooms of a kind: floor, sky and a coloured box, with a little noise."""
    images = np.empty((*lead, 32, 32, 3))
    images[..., :16, :, :], images[..., 16:, :, :] = (110, 160, 215), (120, 95, 70)
    for index in np.ndindex(*lead):
        x, y = rng.integers(2, 22, size=2)
        images[index][y : y + 8, x : x + 8] = rng.integers(0, 255, 3)
    return np.clip(images + rng.normal(scale=6, size=images.shape), 0, 255).astype(np.uint8)


def evaluation(folder: Path, *, episodes: int = 60) -> Path:
    """An evaluation of two agents and five arms, as the evaluator writes it."""
    rng = np.random.default_rng(0)
    arm_records, comparisons, lines = [], [], []
    (folder / "strips").mkdir(parents=True)
    for agent, level in AGENTS.items():
        world = rng.normal(scale=0.3 * level, size=episodes)
        values: dict[str, dict[str, np.ndarray]] = {}
        for arm, (score, decibel, description) in ARMS.items():
            noise = rng.normal(scale=2.0, size=(3, episodes))
            values[arm] = {
                "score": np.round(level + world + score + noise[0]),
                "length": np.full(episodes, 250.0),
                "psnr": 21.5 + decibel + 0.1 * noise[1],
                "ssim": 0.80 + 0.02 * decibel + 0.004 * noise[2],
                "mse": 0.0071 * (1 - 0.2 * decibel) + 0.0001 * noise[1],
            }
            ahead = {
                str(step): {
                    "psnr": stat(values[arm]["psnr"] - 1.1 * step**0.5),
                    "ssim": stat(values[arm]["ssim"] - 0.02 * step),
                    "mse": stat(values[arm]["mse"] * (1 + 0.3 * step**0.5)),
                }
                for step in (1, 3, 8)
            }
            median = 2.1 * {"none": 1, "sig": 9.4, "elbo": 3.1}.get(arm, 1.3)
            arm_records.append(
                {"agent": agent, "arm": arm, "description": description, "episodes": episodes}
                | {metric: stat(found) for metric, found in values[arm].items()}
                | {"open_loop": ahead, "thought_share": float(arm != "none"), "belief_kl": 2.5}
                | {
                    "latency_ms": {
                        "median": median,
                        "p10": 0.92 * median,
                        "p90": 1.2 * median,
                        "batch": 8,
                    }
                }
            )
            lines += [
                {"agent": agent, "arm": arm, "training_seed": 0, "environment_seed": 1000 + i}
                | {metric: float(found[i]) for metric, found in values[arm].items()}
                | {"crashed": False}
                for i in range(episodes)
            ]
            real = frames(rng, 3)
            blur = np.clip(real + rng.normal(scale=16, size=real.shape), 0, 255).astype(np.uint8)
            better = ((real.astype(int) + blur) // 2).astype(np.uint8)
            came = frames(rng, 3, 8)
            np.savez_compressed(
                folder / "strips" / f"{agent}--{arm}.npz",
                real=real,
                before=blur,
                after=better,
                imagined=came // 2 + 60,
                came=came,
                step=np.array([12, 57, 103]),
            )
        comparisons += [
            compared(agent, arm, metric, values)
            for metric in ("score", "length", "psnr", "ssim", "mse")
            for arm in ARMS
            if arm != "none"
        ]
    protocol = {
        "name": "paired-v1",
        "episodes": episodes,
        "seed": 7,
        "command": f"thinkslow evaluate tiny --episodes {episodes} --seed 7",
        "versions": {"thinkslow": "0.1.0", "jax": "0.10.1"},
        "machine": "2 cores, x86_64, CPU only",
    }
    summary = {
        "format": 1,
        "agents": [
            {
                "name": agent,
                "training_steps": 1000 * int(agent[5:-1]),
                "training_seed": 0,
                "preset": "tiny",
                "parameters": 912_345,
            }
            for agent in AGENTS
        ],
        "environment": {"id": "thinkslow/CollectGoodObjects-v0", "size": 64, "repeat": 1},
        "protocol": protocol,
        "arms": arm_records,
        "comparisons": comparisons,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    steps = np.arange(0, 50_000, 500)
    runs = [
        {
            "seed": s,
            "step": steps.tolist(),
            "score": (17 * steps / (2e4 + 5e3 * s + steps)).tolist(),
        }
        for s in range(3)
    ]
    marked = [{"seed": 0, "step": 1000 * int(agent[5:-1]), "name": agent} for agent in AGENTS]
    (folder / "learning.json").write_text(json.dumps({"runs": runs, "agents": marked}))
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluation(tmp_path_factory.mktemp("evaluation") / "out")


@pytest.fixture(scope="session")
def page(folder: Path) -> str:
    return build(folder).read_text()


class Page(HTMLParser):
    """What a browser would load from a page, and what a reader would read."""

    def __init__(self, text: str):
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.words = ""
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "a":
            self.linked.append(named.get("href") or "")
        else:
            self.loaded += [named[key] or "" for key in ("src", "href", "data") if key in named]
        if tag in ("script", "style"):
            self._inside.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and tag == self._inside[-1]:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._inside and self._inside[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        if not {"script", "style"} & set(self._inside):
            self.words += " " + " ".join(data.split())


def figures(page: str) -> list[Any]:
    """The figures of a page, checked by Plotly (whose types are too wide to ask for parts)."""
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page)
    assert found
    return [go.Figure(figure) for figure in json.loads(found[1]).values()]


def titled(page: str, title: str) -> list[Any]:
    return [each for each in figures(page) if (each.layout.title.text or "").startswith(title)]


def changed(folder: Path, to: Path, **changes: Any) -> Path:
    """A copy of the summary alone, with some of its keys changed."""
    to.mkdir(exist_ok=True)
    summary = json.loads((folder / "summary.json").read_text())
    (to / "summary.json").write_text(json.dumps(summary | changes))
    return to


def savez(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)


def test_the_table_of_the_page_holds_the_numbers_of_the_records(folder, page):
    summary = json.loads((folder / "summary.json").read_text())
    tables = Page(page).tables
    assert len(tables) == len(AGENTS)
    for agent, (heading, *lines) in zip(AGENTS, tables, strict=True):
        assert [line[0] for line in lines] == list(ARMS)
        for arm, line in zip(records.arms(summary, agent), lines, strict=True):
            cells = dict(zip(heading, line, strict=True))
            mean, (low, high) = arm["score"]["mean"], arm["score"]["interval"]
            shown = [float(x) for x in re.findall(r"-?[\d.]+", cells["score"])]
            np.testing.assert_allclose(shown, [mean, low, high], atol=0.051)  # one place or two
            assert cells["ms per decision"] == f"{arm['latency_ms']['median']:.2f}"
            if arm["arm"] != "none":
                record = records.comparisons(summary, agent, "psnr")[arm["arm"]]
                expected = estimated(records.estimate(record, "difference"), signed=True)
                assert line[6] == expected
                assert float(expected.split()[0]) == pytest.approx(record["difference"], abs=5e-3)


@pytest.mark.parametrize(
    ("metric", "title"), [("score", "Score"), ("psnr", "PSNR"), ("mse", "MSE")]
)
def test_forests_draw_the_differences_and_intervals_of_the_records(folder, page, metric, title):
    summary = json.loads((folder / "summary.json").read_text())
    for agent, figure in zip(AGENTS, titled(page, title), strict=True):
        drawn = {}
        for trace in figure.data:
            assert all(trace.name == records.kind(arm) for arm in trace.y)
            bars = zip(trace.error_x.arrayminus, trace.error_x.array, strict=True)
            for arm, x, (minus, plus) in zip(trace.y, trace.x, bars, strict=True):
                drawn[arm] = [x, x - minus, x + plus]
        found = records.comparisons(summary, agent, metric)
        assert list(drawn) == list(found)
        for arm, record in found.items():
            expected = [record["difference"], *record["interval"]]
            np.testing.assert_allclose(drawn[arm], expected, rtol=1e-9, atol=1e-12)


def test_every_episode_is_drawn_beside_its_pair(folder, page):
    lines = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    plots = [each for each in figures(page) if "episodes" in (each.layout.xaxis.title.text or "")]
    assert len(plots) == len(AGENTS)
    for agent, figure in zip(AGENTS, plots, strict=True):
        dots = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
        assert set(dots) == set(ARMS)
        for arm in ARMS:
            played = {
                line["environment_seed"]: line["score"]
                for line in lines
                if (line["agent"], line["arm"]) == (agent, arm)
            }
            text = "\n".join(dots[arm].text)
            seeds = [int(seed) for seed in re.findall(r"episode seed (\d+)", text)]
            assert dict(zip(seeds, dots[arm].y, strict=True)) == played
            assert list(dots[arm].x) == list(range(1, 61))


def test_cost_and_open_loop_curves_are_those_of_the_records(folder, page):
    summary = json.loads((folder / "summary.json").read_text())
    arms = records.arms(summary, "tiny-8k")
    bars = next(each.data[0] for each in figures(page) if each.data[0].type == "bar")
    assert list(bars.x) == [arm["latency_ms"]["median"] for arm in arms]
    curves = next(
        each for each in figures(page) if (each.layout.yaxis.title.text or "").startswith("PSNR")
    )
    for trace, arm in zip(curves.data, arms, strict=True):
        assert (trace.name, list(trace.x)) == (arm["arm"], [1, 3, 8])
        assert list(trace.y) == [each["psnr"]["mean"] for each in arm["open_loop"].values()]


def test_the_page_loads_nothing_from_elsewhere(page):
    found = Page(page)
    assert found.loaded
    assert all(source.startswith("data:image/png;base64,") for source in found.loaded)
    assert found.linked == ["https://arxiv.org/abs/2402.15283"]
    assert "default-src 'none'" in page
    style = re.findall(r"<style>.*?</style>", page, flags=re.DOTALL)
    assert len(style) == 1
    assert "url(" not in style[0]
    assert "@import" not in style[0]


def test_the_page_stays_small_and_carries_plotly_once(page):
    assert len(page.encode()) < 6_000_000
    assert page.count("plotly.js v") == 1


def test_the_page_says_what_the_command_line_says_and_where_it_comes_from(folder, page):
    summary = json.loads((folder / "summary.json").read_text())
    words = Page(page).words
    for line in conclusion(summary).split("\n"):
        assert line.split(": ", 1)[1] in words
    assert summary["protocol"]["command"] in words
    assert summary["protocol"]["machine"] in words
    assert "jax 0.10.1" in words


def test_names_are_escaped_wherever_they_appear(folder, tmp_path):
    name = "</script><script>alert(1)</script>"
    summary = json.loads((folder / "summary.json").read_text())
    for record in [*summary["arms"], *summary["comparisons"]]:
        record["agent"] = name
    changes = {"arms": summary["arms"], "comparisons": summary["comparisons"]}
    assert "<script>alert" not in build(changed(folder, tmp_path, **changes)).read_text()


def test_a_page_from_the_summary_alone_says_what_is_missing(folder, tmp_path):
    words = Page(build(changed(folder, tmp_path), title="Only numbers").read_text()).words
    assert "Only numbers" in words
    assert "episodes.jsonl has none of this agent" in " ".join(words.split())
    assert "No learning curve was recorded" in words
    assert "No frames were kept" in words


def test_an_evaluation_of_one_arm_and_no_images_still_makes_a_page(folder, tmp_path):
    arm = {"agent": "mine", "arm": "none", "score": {"mean": 1.0, "interval": None}}
    arm |= {"psnr": None, "open_loop": {"1": {"psnr": None}}, "latency_ms": None}
    words = Page(build(changed(folder, tmp_path, arms=[arm], comparisons=[])).read_text()).words
    assert "No paired comparison with" in words
    assert "No latency was recorded" in words
    assert "No open-loop prediction was recorded" in words
    assert "no refinement was compared with none (none alone), so nothing is shown." in words


def test_the_interval_of_a_single_pair_is_left_out_not_drawn_as_certain(folder, tmp_path):
    summary = json.loads((folder / "summary.json").read_text())
    record = summary["comparisons"][0] | {"interval": [float("nan")] * 2, "pairs": 1}
    page = build(changed(folder, tmp_path, comparisons=[record])).read_text()
    (forest,) = titled(page, "Score")
    assert list(forest.data[0].error_x.array) == [0]
    assert "NaN" not in page[page.index('id="figures"') : page.index("</script>")]
    assert "Too few episodes to say" in Page(page).words


def test_more_frames_than_the_page_can_hold_are_left_out_and_counted(folder):
    strips = records.read(folder).strips
    assert len(rows(strips, budget=100_000_000)) == 30
    few = rows(strips, budget=60_000)
    assert 0 < len(few) < 10
    assert sum(len(p.source) for row in few for p in row.now) < 60_000
    assert {row.arm for row in few} <= {"sig", "elbo"}  # refinements come first


def test_frames_of_one_channel_are_shown(folder):
    strip = records.read(folder).strips["tiny-8k", "none"]
    pictures = ("real", "before", "after", "imagined", "came")
    grey = {key: value[..., :1] if key in pictures else value for key, value in strip.items()}
    assert rows({("a", "none"): grey})[0].now[0].source.startswith("data:image/png;base64,")


def test_strips_are_labelled_by_the_steps_they_look_ahead(folder, tmp_path):
    with np.load(folder / "strips" / "tiny-8k--sig.npz") as file:
        strip: dict[str, Any] = dict(file)
    strip["imagined"], strip["came"] = strip["imagined"][:, :2], strip["came"][:, :2]
    to = changed(folder, tmp_path) / "strips"
    to.mkdir()
    strip["ahead"] = np.array([3, 8])
    savez(to / "tiny-8k--sig.npz", strip)
    words = Page(build(tmp_path).read_text()).words
    assert "t+3 t+8" in words
    assert "t+1" not in words


def test_identical_reconstructions_have_a_grey_difference(folder):
    strip = records.read(folder).strips["tiny-8k", "none"]
    strip |= {"after": strip["before"]}
    (row, *_) = rows({("a", "none"): strip})
    assert row.now[1].caption.removeprefix("before") == row.now[2].caption.removeprefix("after")
    assert len(row.now[3].source) < 1_000  # one colour compresses to nothing


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("summary.json", None, "is missing.*Run `thinkslow evaluate AGENT --out"),
        ("summary.json", b"{", "summary.json is not JSON"),
        ("summary.json", b"\xff\xfe", "summary.json is not text"),
        ("summary.json", b"[]", "must be a summary of format 1; got 'list'"),
        ("summary.json", b'{"format": 2}', "must be a summary of format 1; got 2"),
        ("summary.json", b'{"format": 1}', "`agents` must be a list"),
        ("episodes.jsonl", b'{"agent": "a"', "episodes.jsonl, line 1 is not JSON"),
        ("episodes.jsonl", b"{}", "entry 1 lacks agent, arm, training_seed, environment_seed"),
        ("learning.json", b"{}", "learning.json: `runs` must be a list"),
        ("strips/tiny-8k--sig.npz", b"PK\x03\x04 cut off", "sig.npz is not a readable strip"),
        ("strips/tiny-8k--sig.npz", b"", "sig.npz is not a readable strip"),
    ],
)
def test_a_broken_file_is_one_clear_error_and_keeps_the_old_page(
    folder, tmp_path, name, content, said
):
    changed(folder, tmp_path)
    (tmp_path / "report.html").write_text("old")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        build(tmp_path)
    assert (tmp_path / "report.html").read_text() == "old"


def test_a_strip_of_other_frames_is_refused_by_name(folder, tmp_path):
    with np.load(folder / "strips" / "tiny-8k--sig.npz") as file:
        strip: dict[str, Any] = dict(file)
    to = changed(folder, tmp_path) / "strips"
    to.mkdir()
    savez(to / "tiny-8k--sig.npz", strip | {"real": strip["real"] / 255})
    with pytest.raises(ValueError, match=r"sig.npz: `real` must be uint8 .* got float64"):
        build(tmp_path)
    savez(to / "tiny-8k--sig.npz", strip | {"step": np.arange(2)})
    with pytest.raises(ValueError, match="`real` has 3 entries, `step` has 2"):
        build(tmp_path)


def test_episodes_that_end_at_one_step_are_one_point_of_the_learning_curve(folder, tmp_path):
    run = {"seed": 0, "step": [10, 10, 20, 30], "score": [1.0, 3.0, 5.0, None]}
    changed(folder, tmp_path)
    marked = [{"seed": 0, "step": 19, "name": "mine"}]
    (tmp_path / "learning.json").write_text(json.dumps({"runs": [run], "agents": marked}))
    line, star = figures(build(tmp_path).read_text())[-1].data
    assert (list(line.x), list(line.y)) == ([10, 20], [2, 5])
    assert (list(star.x), list(star.y)) == ([19], [5])


def test_several_agents_have_a_line_each(folder):
    lines = conclusion(json.loads((folder / "summary.json").read_text())).split("\n")
    assert [line.split(":")[0] for line in lines] == list(AGENTS)
    assert conclusion({"arms": [], "comparisons": []}).startswith("No arm was evaluated")


def test_the_terminals_table_groups_arms_by_agent_and_fits_eighty_columns(folder):
    summary = json.loads((folder / "summary.json").read_text())
    console = Console(width=80, record=True, file=StringIO())
    console.print(table(summary))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    starts = [line.split()[0] for line in lines if line[:1].strip()]
    assert starts[1:] == [name for agent in AGENTS for name in (agent, *ARMS)]
    record = records.comparisons(summary, "tiny-8k", "score")["sig"]
    row = next(line for line in lines if line.startswith("sig"))
    assert f"{record['difference']:+.2f} [{record['interval'][0]:.2f}," in row
    assert "100%" in row


def test_a_table_without_images_or_timings_has_dashes(folder):
    summary = json.loads((folder / "summary.json").read_text())
    arm = {"agent": "a", "arm": "[none]", "score": {"mean": 1.0}, "latency_ms": None}
    console = Console(width=80, record=True, file=StringIO())
    console.print(table(summary | {"arms": [arm], "comparisons": []}))
    assert re.search(r"\[none\] +1.00( +–){5}", console.export_text())
