"""The page, the table and the sentence of an evaluation, on folders as an evaluator writes them."""

import dataclasses
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from rich.console import Console

from thinkslow.evaluation import Evaluation, reading
from thinkslow.evaluation.metrics import AHEAD, ahead, image_columns
from thinkslow.evaluation.records import (
    Episode,
    Header,
    append,
    read,
    strip_file,
    write_header,
)
from thinkslow.evaluation.report import strips
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
FEW = 6
"""Episodes an arm of which most pages of these tests are made."""
AGENTS = {"tiny-8k": 3.0, "tiny-48k": 14.0}


def frames(rng: np.random.Generator, *lead: int) -> np.ndarray:
    """Rooms of a kind: floor, sky and a coloured box, with a little noise."""
    images = np.empty((*lead, 32, 32, 3))
    images[..., :16, :, :], images[..., 16:, :, :] = (110, 160, 215), (120, 95, 70)
    for index in np.ndindex(*lead):
        x, y = rng.integers(2, 22, size=2)
        images[index][y : y + 8, x : x + 8] = rng.integers(0, 255, 3)
    return np.clip(images + rng.normal(scale=6, size=images.shape), 0, 255).astype(np.uint8)


def header(episodes: int, agents: list[str]) -> Header:
    return Header(
        protocol="paired-v1",
        environment={"id": "thinkslow/CollectGoodObjects-v0", "size": 64, "repeat": 1},
        agents=[
            {
                "name": agent,
                "training_steps": 1000 * int(agent[5:-1]),
                "training_seed": 0,
                "preset": "tiny",
                "parameters": 912_345,
            }
            for agent in agents
        ],
        arms=[
            {"agent": agent, "arm": arm, "description": description}
            for agent in agents
            for arm, (*_, description) in ARMS.items()
        ],
        episodes=episodes,
        seed=7,
        batch=8,
        max_decisions=None,
        pool=False,
        versions={"thinkslow": "0.1.0", "jax": "0.10.1"},
        images={agent: ["image"] for agent in agents},
        curves={},
        sittings=[
            {
                "command": f"thinkslow evaluate tiny --episodes {episodes} --seed 7",
                "machine": "2 cores, x86_64, CPU only",
                "revision": "abc",
            }
        ],
    )


def image_scores(psnr: float, ssim: float, mse: float, gain: float) -> dict[str, float]:
    """The columns of an image, worse the farther ahead."""
    now = {"psnr": psnr, "ssim": ssim, "mse": mse}
    worse = {"psnr": -1.1, "ssim": -0.02, "mse": 0.001}
    later = {ahead(m, step): now[m] + worse[m] * step**0.5 for m in now for step in AHEAD}
    gains = {column: gain for column in image_columns() if "gain" in column}
    return {**now, **later, **gains, "mse_gain": -0.0014 * gain}


def evaluation(folder: Path, *, episodes: int = 24) -> Path:
    """An evaluation of two agents and five arms, as the evaluator writes it."""
    rng = np.random.default_rng(0)
    steps = np.arange(0, 50_000, 500)
    curve = {"step": steps.tolist(), "score": (17 * steps / (2e4 + steps)).tolist()}
    whole = dataclasses.replace(header(episodes, list(AGENTS)), curves=dict.fromkeys(AGENTS, curve))
    (folder / "strips").mkdir(parents=True)
    write_header(folder, whole)
    played = []
    for agent, level in AGENTS.items():
        world = rng.normal(scale=0.3 * level, size=episodes)
        for arm, (score, decibel, _) in ARMS.items():
            noise = rng.normal(scale=2.0, size=(3, episodes))
            median = 2.1 * {"none": 1, "sig": 9.4, "elbo": 3.1}.get(arm, 1.3)
            played += [
                Episode(
                    agent=agent,
                    arm=arm,
                    episode=number,
                    environment_seed=1000 + number,
                    training_seed=0,
                    score=float(np.round(level + world[number] + score + noise[0, number])),
                    rewards_size=30.0,
                    length=250,
                    crashed=False,
                    error=None,
                    cut=False,
                    nonfinite=0,
                    nonfinite_first=None,
                    first_observation=f"seen-{number}",
                    thought_share=float(arm != "none"),
                    belief_kl=2.5,
                    latency_ms=median,
                    latency_ms_mean=median,
                    latency_ms_p10=0.92 * median,
                    latency_ms_p90=1.2 * median,
                    images=image_scores(
                        21.5 + decibel + 0.1 * noise[1, number],
                        0.80 + 0.02 * decibel + 0.004 * noise[2, number],
                        0.0071 * (1 - 0.2 * decibel) + 0.0001 * noise[1, number],
                        0.0 if arm == "none" else decibel + 0.1 * noise[2, number],
                    ),
                )
                for number in range(episodes)
            ]
            real = frames(rng, 3)
            blur = np.clip(real + rng.normal(scale=16, size=real.shape), 0, 255).astype(np.uint8)
            better = ((real.astype(int) + blur) // 2).astype(np.uint8)
            came = frames(rng, 3, 3)
            strip: dict[str, Any] = {
                "real": real,
                "before": blur,
                "after": better,
                "imagined": came // 2 + 60,
                "came": came,
                "step": np.array([12, 57, 103]),
                "ahead": np.array(AHEAD),
            }
            savez(strip_of(folder, agent, arm), strip)
    append(folder, played)
    build(folder)
    return folder


def strip_of(folder: Path, agent: str, arm: str) -> Path:
    at = list(AGENTS).index(agent) * len(ARMS) + list(ARMS).index(arm)
    return strip_file(folder, at, 0)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluation(tmp_path_factory.mktemp("evaluation") / "out")


@pytest.fixture(scope="session")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text()


@pytest.fixture(scope="session")
def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


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
    return [
        each for each in figures(page) if (each.layout.title.text or "").startswith(f"{title},")
    ]


def changed(folder: Path, to: Path, episodes: Any = None, **changes: Any) -> Path:
    """The first records of each arm, without pictures, some of header and episodes changed."""
    to.mkdir(exist_ok=True)
    write_header(to, dataclasses.replace(read(folder).header, **{"episodes": FEW} | changes))
    append(to, few(folder) if episodes is None else episodes)
    return to


def few(folder: Path) -> list[Episode]:
    return [one for one in read(folder).episodes if one.episode < FEW]


def savez(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)


def test_the_table_of_the_page_holds_the_numbers_of_the_records(summary, page):
    tables = Page(page).tables
    assert len(tables) == len(AGENTS)
    for agent, (heading, *lines) in zip(AGENTS, tables, strict=True):
        assert [line[0] for line in lines] == list(ARMS)
        for arm, line in zip(reading.arms(summary, agent), lines, strict=True):
            cells = dict(zip(heading, line, strict=True))
            mean, (low, high) = arm["score"]["mean"], arm["score"]["interval"]
            shown = [float(x) for x in re.findall(r"-?[\d.]+", cells["score"])]
            np.testing.assert_allclose(shown, [mean, low, high], atol=0.051)  # one place or two
            assert cells["ms per decision"] == f"{arm['latency_ms']['median']:.2f}"
            if arm["arm"] != "none":
                record = reading.comparisons(summary, agent, "psnr")[arm["arm"]]
                expected = estimated(reading.estimate(record, "difference"), signed=True)
                assert line[6] == expected
                assert float(expected.split()[0]) == pytest.approx(record["difference"], abs=5e-3)


@pytest.mark.parametrize(
    ("metric", "title"), [("score", "Score"), ("psnr", "PSNR"), ("mse", "MSE")]
)
def test_forests_draw_the_differences_and_intervals_of_the_records(summary, page, metric, title):
    for agent, figure in zip(AGENTS, titled(page, title), strict=True):
        drawn = {}
        for trace in figure.data:
            assert all(trace.name == reading.kind(arm) for arm in trace.y)
            bars = zip(trace.error_x.arrayminus, trace.error_x.array, strict=True)
            for arm, x, (minus, plus) in zip(trace.y, trace.x, bars, strict=True):
                drawn[arm] = [x, x - minus, x + plus]
        found = reading.comparisons(summary, agent, metric)
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
            assert list(dots[arm].x) == list(range(1, 25))


def test_cost_and_open_loop_curves_are_those_of_the_records(summary, page):
    arms = reading.arms(summary, "tiny-8k")
    bars = next(each.data[0] for each in figures(page) if each.data[0].type == "bar")
    assert list(bars.x) == [arm["latency_ms"]["median"] for arm in arms]
    curves = next(
        each for each in figures(page) if (each.layout.yaxis.title.text or "").startswith("PSNR")
    )
    for trace, arm in zip(curves.data, arms, strict=True):
        assert (trace.name, list(trace.x)) == (arm["arm"], [1, 3, 8])
        assert list(trace.y) == [arm[ahead("psnr", step)]["mean"] for step in AHEAD]


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


def test_the_page_says_what_the_command_line_says_and_where_it_comes_from(summary, page):
    words = Page(page).words
    for line in conclusion(summary).split("\n"):
        assert line.split(": ", 1)[1] in words
    assert summary["protocol"]["command"] in words
    assert summary["protocol"]["machine"] in words
    assert "jax 0.10.1" in words


def renamed(found: Sequence[Episode], agent: str) -> list[Episode]:
    return [dataclasses.replace(one, agent=agent) for one in found if one.agent == "tiny-8k"]


def test_names_are_escaped_wherever_they_appear(folder, tmp_path):
    name = "</script><script>alert(1)</script>"
    arms = [{"agent": name, "arm": arm, "description": name} for arm in ARMS]
    to = changed(
        folder, tmp_path, renamed(few(folder), name), agents=[{"name": name, "preset": name}],
        arms=arms, images={name: ["image"]}, environment={"id": name}, curves={},
        sittings=[{"command": name, "machine": name}],
    )  # fmt: skip
    assert "<script>alert" not in build(to).read_text()


def test_a_page_from_few_records_says_what_is_missing(folder, tmp_path):
    alone = [one for one in few(folder) if one.arm == "none"]
    to = changed(folder, tmp_path, alone, curves={})
    words = " ".join(Page(build(to, title="Only numbers").read_text()).words.split())
    assert "Only numbers" in words
    assert "12 of 60 episodes" in words
    assert "episodes.jsonl has none of this agent" in words
    assert "No learning curve was recorded" in words
    assert "No frames were kept" in words
    assert "No paired comparison with" in words
    assert "no refinement was compared with none (none alone), so nothing is shown." in words


def test_an_evaluation_of_one_arm_and_no_images_still_makes_a_page(folder, tmp_path):
    first = read(folder).episodes[0]
    bare = dataclasses.replace(
        first, images={}, latency_ms=None, latency_ms_mean=None, latency_ms_p10=None,
        latency_ms_p90=None, thought_share=None, belief_kl=None,
    )  # fmt: skip
    words = Page(build(changed(folder, tmp_path, [bare])).read_text()).words
    assert "No latency was recorded" in words
    assert "No open-loop prediction was recorded" in words


def test_the_interval_of_a_single_pair_is_left_out_not_drawn_as_certain(folder, tmp_path):
    pair = [
        one
        for one in read(folder).episodes
        if one.agent == "tiny-8k" and one.arm in ("none", "sig") and one.episode == 0
    ]
    page = build(changed(folder, tmp_path, pair)).read_text()
    (forest,) = titled(page, "Score")
    assert list(forest.data[0].error_x.array) == [0]
    assert "NaN" not in page[page.index('id="figures"') : page.index("</script>")]
    assert "Too few episodes to say" in Page(page).words


def test_more_frames_than_the_page_can_hold_are_left_out_and_counted(folder):
    found = strips.read(folder, read(folder).header)
    assert len(rows(found, budget=100_000_000)) == 30
    few = rows(found, budget=60_000)
    assert 0 < len(few) < 10
    assert sum(len(p.source) for row in few for p in row.now) < 60_000
    assert {row.arm for row in few} <= {"sig", "elbo"}  # refinements come first


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_frames_of_other_channels_than_three_are_shown(folder, channels):
    strip = strips.read(folder, read(folder).header)["tiny-8k", "none", "image"]
    pictures = ("real", "before", "after", "imagined", "came")
    some = {
        key: value[..., [0] * channels] if key in pictures else value
        for key, value in strip.items()
    }
    found = rows({("a", "none", "pixels"): some})[0]
    assert found.now[0].source.startswith("data:image/png;base64,")


def test_strips_are_labelled_by_the_steps_they_look_ahead(folder, tmp_path):
    with np.load(strip_of(folder, "tiny-8k", "sig")) as file:
        strip: dict[str, Any] = dict(file)
    strip["imagined"], strip["came"] = strip["imagined"][:, :2], strip["came"][:, :2]
    (changed(folder, tmp_path) / "strips").mkdir()
    strip["ahead"] = np.array([3, 8])
    savez(strip_of(tmp_path, "tiny-8k", "sig"), strip)
    words = Page(build(tmp_path).read_text()).words
    assert "t+3 t+8" in words
    assert "t+1" not in words


def test_identical_reconstructions_have_a_grey_difference(folder):
    strip = strips.read(folder, read(folder).header)["tiny-8k", "none", "image"]
    strip |= {"after": strip["before"]}
    (row, *_) = rows({("a", "none", "image"): strip})
    assert row.now[1].caption.removeprefix("before") == row.now[2].caption.removeprefix("after")
    assert len(row.now[3].source) < 1_000  # one colour compresses to nothing


BROKEN = [
    ("evaluation.json", None, "is missing.*thinkslow evaluate AGENT --out"),
    ("evaluation.json", b"{", "evaluation.json is not JSON"),
    ("evaluation.json", b"\xff\xfe", "evaluation.json is not text"),
    ("evaluation.json", b"[]", "format 2; got 'list'"),
    ("evaluation.json", b'{"format": 1}', "format 2; got 1"),
    ("evaluation.json", b'{"format": 2}', "`protocol` must be str"),
    ("episodes.jsonl", b"{}\n", "episodes.jsonl, line 1 .*lacks agent, arm"),
    ("episodes.jsonl", b'{"agent": "a"\n{}\n', "episodes.jsonl, line 1 is not a record"),
    ("episodes.jsonl", b"[]\n", "line 1 .*got list"),
    ("strips/1-0.npz", b"PK\x03\x04 cut off", "1-0.npz is not a readable strip"),
    ("strips/1-0.npz", b"", "1-0.npz is not a readable strip"),
]


@pytest.mark.parametrize(("name", "content", "said"), BROKEN)
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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": "many"}, "`score` is 'many'"),
        ({"length": 2.5}, "`length` is 2.5"),
        ({"crashed": 1}, "`crashed` is 1"),
        ({"score": True}, "`score` is True"),
        ({"psnr_of_the_moon": 1.0}, "psnr_of_the_moon"),
    ],
)
def test_a_record_of_other_columns_is_refused_by_line_and_name(folder, tmp_path, changes, said):
    changed(folder, tmp_path)
    path = tmp_path / "episodes.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([json.dumps(json.loads(first) | changes) + "\n", *rest]))
    with pytest.raises(ValueError, match=f"line 1 .*{said}"):
        read(tmp_path)


def test_an_episode_written_twice_is_refused_by_name(folder, tmp_path):
    twice = read(folder).episodes[3]
    append(changed(folder, tmp_path), [twice])
    with pytest.raises(ValueError, match="episode 3 of tiny-8k, none twice"):
        read(tmp_path)


def test_the_folder_of_an_earlier_version_is_told_from_an_empty_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no evaluation\\."):
        read(tmp_path)
    (tmp_path / "summary.json").write_text('{"format": 1}')
    with pytest.raises(FileNotFoundError, match="earlier version"):
        read(tmp_path)


def test_a_strip_of_other_frames_is_refused_by_name(folder, tmp_path):
    with np.load(strip_of(folder, "tiny-8k", "sig")) as file:
        strip: dict[str, Any] = dict(file)
    (changed(folder, tmp_path) / "strips").mkdir()
    path = strip_of(tmp_path, "tiny-8k", "sig")
    savez(path, strip | {"real": strip["real"] / 255})
    with pytest.raises(ValueError, match=r"1-0.npz: `real`.*got float64"):
        build(tmp_path)
    savez(path, strip | {"step": np.arange(2)})
    with pytest.raises(ValueError, match="`real` has 3 entries, `step` has 2"):
        build(tmp_path)


def test_episodes_that_end_at_one_step_are_one_point_of_the_learning_curve(folder, tmp_path):
    curve = {"step": [10, 10, 20, 30], "score": [1.0, 3.0, 5.0, None]}
    agents = [{"name": "tiny-8k", "training_seed": 0, "training_steps": 19}]
    to = changed(
        folder, tmp_path, renamed(few(folder), "tiny-8k"), agents=agents,
        curves={"tiny-8k": curve},
    )  # fmt: skip
    line, star = figures(build(to).read_text())[-1].data
    assert (list(line.x), list(line.y)) == ([10, 20], [2, 5])
    assert (list(star.x), list(star.y)) == ([19], [5])


def test_several_agents_have_a_line_each(summary):
    lines = conclusion(summary).split("\n")
    assert [line.split(":")[0] for line in lines] == list(AGENTS)
    assert conclusion({"arms": [], "comparisons": []}).startswith("No arm was evaluated")


def printed(summary: dict[str, Any], width: int = 80) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(table(summary))
    return console.export_text()


def test_the_terminals_table_groups_arms_by_agent_and_fits_eighty_columns(summary):
    shown = printed(summary)
    assert max(map(len, shown.splitlines())) <= 80
    lines = shown[: shown.index("diff: ")].splitlines()  # what follows explains it
    starts = [line.split()[0] for line in lines if line[:1].strip()]
    assert starts[1:] == [name for agent in AGENTS for name in (agent, *ARMS)]
    record = reading.comparisons(summary, "tiny-8k", "score")["sig"]
    row = next(line for line in lines if line.startswith("sig"))
    expected = estimated(reading.estimate(record, "difference"), signed=True)
    assert expected.replace(", ", ",") in row
    assert "100%" in row


def test_a_table_without_images_or_timings_has_dashes(summary):
    arm = {"agent": "a", "arm": "[none]", "score": {"mean": 1.0}, "latency_ms": None}
    shown = printed(summary | {"arms": [arm], "comparisons": []})
    assert re.search(r"\[none\] +1.00( +–){5}", shown)


@pytest.mark.parametrize("width", [30, 40, 60, 80])
@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e3, 1e7, 1e12])
def test_the_table_never_cuts_a_number(width, scale):
    """Scores of 2e7 were shown as `[20000000.00,2000000…` in a log of 80 columns."""
    score = {"mean": 2.0123 * scale, "interval": [1.9 * scale, 2.2 * scale]}
    row = {"agent": "agent", "arm": "evidence+steps=8+samples=4", "metric": "score"}
    row |= {"difference": 0.5 * scale, "interval": [0.1 * scale, 0.9 * scale], "pairs": 9}
    arms = [{"agent": "agent", "arm": arm, "score": score} for arm in ("none", row["arm"])]
    summary = {
        "environment": {"id": "some/Env-v0"}, "protocol": {"episodes": 9}, "arms": arms,
        "comparisons": [row],
    }  # fmt: skip
    shown = printed(summary, width)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    wide = printed(summary, 200)
    for interval in (score["interval"], row["interval"]):
        found = re.findall(r"\[(\S+?),(\S+?)\]", wide)
        assert any(
            np.allclose([float(low), float(high)], interval, rtol=0.05) for low, high in found
        )


def test_the_table_says_that_episodes_are_no_pairs(summary):
    rows = [row | {"paired": False} for row in summary["comparisons"]]
    assert "independent" in printed(summary | {"comparisons": rows})


def test_a_report_in_another_folder_holds_the_records_too(folder, tmp_path):
    result = Evaluation(folder)
    page = result.report(tmp_path / "copy")
    assert page.parent == tmp_path / "copy"
    assert read(tmp_path / "copy").rows() == result.episodes
    with pytest.raises(ValueError, match="holds an evaluation already"):
        result.report(tmp_path / "copy")
