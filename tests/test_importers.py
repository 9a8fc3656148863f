"""Agents of other projects: found, checked, fitted to an environment, played and kept.

Parity with their own code is `test_golden.py`'s; here are other sizes than its cases have, wrong
files, and the command line.
"""

import dataclasses
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from helpers import ask, golden_case, nightly, slow, tiny_dreamer

import thinkslow
from thinkslow import importers
from thinkslow.cli import main
from thinkslow.dreamer.config import MLPConfig
from thinkslow.dreamer.match_spaces import match_spaces
from thinkslow.dreamer.model import Dreamer
from thinkslow.importers.foreign import Foreign, Found
from thinkslow.importers.formats.arrays import Stored
from thinkslow.importers.importer import files, inside
from thinkslow.importers.loading import read, saved_from
from thinkslow.saved import folder as checkpoint
from thinkslow.saved.environment import environment_of
from thinkslow.spaces import Space
from thinkslow.storage import checks, store
from thinkslow.storage.paths import expanded
from thinkslow.weights import named

MAIN = ("danijar_main-a", "r2dreamer-b", "sheeprl_v35-a")


def image(side: int, channels: int = 3) -> Space:
    return Space((side, side, channels), "uint8")


def vector(*shape: int) -> Space:
    return Space(shape, "float32")


def choice(classes: int) -> Space:
    return Space((), "int32", classes)


def as_danijar(folder: Path, model: Dreamer, **more: Any) -> Path:
    """A log folder as danijar/dreamerv3 writes it."""
    config = model.config
    params = {name: np.asarray(array) for name, array in named(model).items()} | more
    params |= {"opt/state/0": np.zeros(3, np.float32), "retnorm/lo/value": np.zeros((), "f4")}
    inside = folder / "ckpt" / "20260101T000000F000000"
    inside.mkdir(parents=True)
    agent = {"params": params, "counters": {"actions": 7}}
    (inside / "agent.pkl").write_bytes(pickle.dumps(agent))
    (inside / "done").touch()
    (folder / "ckpt" / "latest").write_text(inside.name)
    rssm = {"classes": config.classes, "unimix": config.unimix, "free_nats": config.free_nats}
    options = {
        "agent": {
            "dyn": {"rssm": rssm},
            "loss_scales": {"rep": config.rep_scale},
            "contdisc": True,
        },
        "task": "gym_cartpole",
        "seed": 3,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(options))
    return folder


# --- sizes that the golden cases do not have -----------------------------------------------------

SHAPES: dict[str, dict[str, Any]] = {
    "an image of 96": {"observations": {"image": image(96)}, "mults": (1, 2, 3)},
    "an image of 128": {"observations": {"image": image(128, 1)}, "mults": (1, 2, 2, 3, 3)},
    "one convolution, another kernel": {
        "observations": {"image": image(8)},
        "mults": (1,),
        "kernel": 3,
    },
    "vectors only, one a number, one of classes": {
        "observations": {"b": vector(3), "a": vector(), "c": choice(4)},
        "encoder": MLPConfig(3, 5),
        "decoder": MLPConfig(2, 7),
        "mults": (),
    },
    "several actions": {
        "observations": {"image": image(8)},
        "mults": (1,),
        "actions": {"jump": choice(2), "aim": vector(3), "turn": choice(5)},
    },
    "layers, blocks and bins": {
        "observations": {"image": image(8), "x": vector(2)},
        "mults": (2, 4),
        "blocks": 8,
        "core_layers": 2,
        "prior_layers": 3,
        "posterior_layers": 2,
        "reward_bins": 7,
        "value_bins": 9,
        "reward": MLPConfig(2, 6),
        "policy": MLPConfig(4, 5),
        "decoder_blocks": 2,
        "classes": 3,
        "stoch": 5,
    },
    "twelve layers": {
        "observations": {"image": image(8)},
        "mults": (1,),
        "policy": MLPConfig(12, 4),
    },
    "other widths of prior and posterior": {
        "observations": {"image": image(8)},
        "mults": (1,),
        "prior_hidden": 5,
        "posterior_hidden": 9,
    },
}


@pytest.mark.parametrize("name", SHAPES)
def test_what_danijars_code_writes_is_what_is_read(name, tmp_path):
    case = {"depth": 4, "decoder_blocks": 4, "vision": "conv"} | SHAPES[name]
    model = tiny_dreamer(**case)
    saved = importers.load(as_danijar(tmp_path / "log", model))
    jax.tree.map(np.testing.assert_array_equal, named(saved.model), named(model))
    assert dict(saved.model.observation_spaces) == dict(model.observation_spaces)
    assert dict(saved.model.action_spaces) == dict(model.action_spaces)
    assert saved.manifest["training"] == {"steps": 7, "seed": 3, "preset": None}
    channels = [saved.model.config.depth * mult for mult in saved.model.config.mults]
    assert channels == [model.config.depth * mult for mult in model.config.mults]


def test_an_imported_agent_is_the_same_agent(tmp_path):
    saved = importers.load(golden_case("r2dreamer-a-nodecoder"))
    importers.write(saved, tmp_path / "ours")
    again = checkpoint.load(tmp_path / "ours")
    jax.tree.map(np.testing.assert_array_equal, named(again.model), named(saved.model))
    assert again.model.config == saved.model.config
    for key in ("source", "conventions", "cannot", "environment"):
        assert again.manifest[key] == saved.manifest[key]


# --- finding -------------------------------------------------------------------------------------


def test_the_newest_checkpoint_is_taken_and_an_unfinished_one_is_not(tmp_path):
    log = as_danijar(
        tmp_path / "log",
        tiny_dreamer(**SHAPES["one convolution, another kernel"], vision="conv", decoder_blocks=4),
    )
    first = next((log / "ckpt").glob("*/agent.pkl"))
    newer = log / "ckpt" / "20260102T000000F000000"
    newer.mkdir()
    (newer / "agent.pkl").write_bytes(first.read_bytes()[:100])
    for given in (log, log / "ckpt", first.parent, first):
        assert importers.find(given).file == first
    (log / "ckpt" / "latest").unlink()  # as a crash leaves it
    assert importers.find(log).file == first
    (log / "ckpt" / "latest").write_text("../../elsewhere")
    assert importers.find(log).file == first


def test_of_sheeprls_versions_and_steps_the_last_is_taken_and_of_two_runs_none(tmp_path):
    source = golden_case("sheeprl_v35-a") / "version_0"
    run = tmp_path / "logs" / "runs" / "dreamer_v3_5" / "crafter" / "one"
    for version, steps in ((0, 900), (1, 200), (1, 1000)):
        inside = run / f"version_{version}" / "checkpoint"
        inside.mkdir(parents=True, exist_ok=True)
        data = (source / "checkpoint" / "ckpt_4096_0.ckpt").read_bytes()
        (inside / f"ckpt_{steps}_0.ckpt").write_bytes(data)
        (inside.parent / "config.yaml").write_bytes((source / "config.yaml").read_bytes())
    assert importers.load(tmp_path / "logs").manifest["training"]["steps"] == 1000
    assert importers.load(run / "version_0").manifest["training"]["steps"] == 900
    (run.parent / "two").mkdir()
    (run.parent / "two" / "latest.pt").touch()
    with pytest.raises(ValueError, match="holds 2 runs"):
        importers.find(tmp_path / "logs")


SMALL = {"vision": "conv", "decoder_blocks": 4, "observations": {"image": image(8)}, "mults": (1,)}


def test_the_folder_above_one_log_folder_holds_one_run(tmp_path):
    log = as_danijar(tmp_path / "logs" / "one", tiny_dreamer(**SMALL))
    assert importers.find(tmp_path / "logs").file == importers.find(log).file
    as_danijar(tmp_path / "logs" / "two", tiny_dreamer(**SMALL))
    with pytest.raises(ValueError, match="holds 2 runs"):
        importers.find(tmp_path / "logs")


def _run_of_ours(folder: Path) -> Path:
    """A training run with two agents and a save, as far as their places tell."""
    for name in ("agents/200", "agents/1000", "saves/000001"):
        (folder / name).mkdir(parents=True)
        (folder / name / "manifest.json").write_text("{}")
        (folder / name / "weights.safetensors").touch()
    (folder / "config.json").write_text("{}")
    (folder / "saves" / "latest").write_text("000001")
    (folder / "replay").mkdir()
    return folder


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("agents/200/manifest.json", "belongs to the agent {run}/agents/200. Give that folder."),
        ("agents/200/weights.safetensors", "belongs to the agent {run}/agents/200."),
        (
            ".",
            "{run} is a training run; its agents are in agents/: the newest is {run}/agents/1000.",
        ),
        ("agents", "belongs to {run}, which is a training run"),
        ("config.json", "the newest is {run}/agents/1000."),
        ("saves/latest", "the newest is {run}/agents/1000."),
        ("saves/000001/weights.safetensors", "the newest is {run}/agents/1000."),
        ("replay", "the newest is {run}/agents/1000."),
        ("..", "is not an agent; 2 agents below it. Give {run}/agents/200 or {run}/agents/1000."),
    ],
)
def test_what_belongs_to_an_agent_or_a_run_says_which_folder_to_give(given, said, tmp_path):
    """They were `not a checkpoint`, and a folder of agents `held no agent`."""
    run = _run_of_ours(tmp_path.resolve() / "run")
    path = Path(os.path.normpath(run / given))
    with pytest.raises(store.Missing, match=re.escape(said.format(run=run))):
        thinkslow.load(path)


@pytest.mark.parametrize("file", ["evaluation.json", "study.json", "bank.json", "moments.jsonl"])
def test_a_result_in_place_of_an_agent_is_called_one(file, tmp_path):
    (tmp_path / file).write_text("{}")
    (tmp_path / "report.html").touch()
    for path in (tmp_path, tmp_path / "report.html"):
        with pytest.raises(store.Missing, match="a result of `thinkslow"):
            thinkslow.load(path)


def test_an_agent_of_another_project_beside_a_result_is_still_opened(tmp_path):
    """An evaluation may be written into the log folder of its agent."""
    as_danijar(tmp_path, tiny_dreamer(**SMALL))
    (tmp_path / "evaluation.json").write_text("{}")
    assert thinkslow.load(tmp_path).about.name == tmp_path.name


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("https://example.org/agent", "Download it"),
        ("hf://someone/agent", "Download it"),
        ("git@example.org:someone/agent.git", "Download it"),
        ("file:///home/someone/agent", "Give the path alone"),
    ],
)
def test_an_address_in_place_of_an_agent_is_called_one(given, remedy):
    for form in (str, Path):
        with pytest.raises(store.Missing, match=f"is an address. {remedy}"):
            thinkslow.load(form(given))


def test_a_packed_agent_is_to_be_unpacked(tmp_path):
    """A zip of an agent folder `has 0 files data.pkl`, another archive `is not a checkpoint`."""
    run = _run_of_ours(tmp_path / "run")
    for kind in ("zip", "tar", "gztar", "xztar"):
        packed = Path(shutil.make_archive(str(tmp_path / kind), kind, run / "agents"))
        with pytest.raises(store.Damaged, match="npack it"):
            thinkslow.load(packed)


def test_an_address_is_no_path_in_python_either(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="on this machine; got the address 's3://bucket/run'"):
        expanded("s3://bucket/run")
    assert expanded("a:b//c") == Path("a:b/c")


def test_the_home_of_nobody_is_said(capsys):
    assert main(["inspect", "~no-such-user/agent"]) == 1
    assert "that of '~no-such-user/agent' is unknown" in capsys.readouterr().err


def test_an_archive_that_was_not_copied_to_its_end_is_cut_off(tmp_path):
    with zipfile.ZipFile(tmp_path / "whole.pt", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({}))
        file.writestr("archive/data/0", bytes(1000))
    data = (tmp_path / "whole.pt").read_bytes()
    for left in (len(data) - 100, 200, 40):
        (tmp_path / "latest.pt").write_bytes(data[:left])
        with pytest.raises(store.Damaged, match=r"cut off.*Copy it again"):
            importers.find(tmp_path / "latest.pt")


def test_a_configuration_that_is_no_file_is_refused(tmp_path):
    log = as_danijar(tmp_path / "log", tiny_dreamer(**SMALL))
    for make in (os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path.name)):
        (log / "config.yaml").unlink(missing_ok=True)
        make(log / "config.yaml")
        with pytest.raises(store.Damaged, match="must be a file"):
            importers.load(log)
        if (log / "config.yaml").is_dir():
            (log / "config.yaml").rmdir()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("unimix", -1.0),
        ("unimix", 1.0),
        ("unimix", float("inf")),
        ("free_nats", -0.5),
        ("classes", 0),
        ("classes", 2.5),
        ("classes", "x" * 10_000),
        ("unimix", [[1]]),
    ],
)
def test_a_size_or_share_that_cannot_be_is_refused_in_one_line(option, value, tmp_path):
    log = as_danijar(tmp_path / "log", tiny_dreamer(**SMALL))
    options = yaml.safe_load((log / "config.yaml").read_text())
    options["agent"]["dyn"]["rssm"][option] = value
    (log / "config.yaml").write_text(yaml.safe_dump(options))
    with pytest.raises((store.Damaged, store.Misfit)) as caught:
        importers.load(log)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1001


def test_options_of_any_kind_survive_import_and_inspect(tmp_path, capsys):
    log = as_danijar(tmp_path / "log\x1b[31m[b]", tiny_dreamer(**SMALL))
    with (log / "config.yaml").open("a") as file:
        file.write("when: 2020-01-01\nbad: .nan\nworse: -.inf\nlong: 1:20:30\n")
        file.write("some: !!set {a, b}\nrow: !!omap [x: 1]\n")
    assert main(["import", str(log), str(tmp_path / "ours")]) == 0
    shown = capsys.readouterr()
    assert main(["inspect", str(tmp_path / "ours"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert facts["source"]["options"]["when"] == "2020-01-01"
    assert facts["source"]["options"]["some"] == {"a": None, "b": None}
    assert main(["inspect", str(log)]) == 0
    shown = shown.out + shown.err + capsys.readouterr().out
    assert "\x1b[31m" not in shown
    assert facts["name"] == r"log\x1b[31m[b]"


def test_a_module_that_only_the_agents_files_name_is_not_imported():
    environment = {"id": "evil:Env-v0", "size": 8, "repeat": 1}
    one = checkpoint.Saved(tiny_dreamer(), {"name": "theirs", "environment": environment})
    with pytest.raises(ValueError, match="`environment=evil:Env-v0`"):
        environment_of(one)
    assert environment_of(one, "CartPole-v1")["id"] == "CartPole-v1"
    environment |= {"id": "CartPole-v1", "wrappers": ["evil:Class"]}
    with pytest.raises(ValueError, match="`wrappers=evil:Class`"):
        environment_of(one, "CartPole-v1")
    mine = {"wrappers": ["mine:Class"]}
    assert environment_of(one, None, mine)["wrappers"] == ["mine:Class"]


def test_an_importer_from_outside_is_opened_like_any_other(tmp_path):
    def read_it(found: Found, *, classes: int | None = None) -> Foreign:
        own = as_danijar(tmp_path / "inner", tiny_dreamer(**SMALL))
        inner = read(importers.find(own))
        return dataclasses.replace(inner, steps=found.content["theirs"])

    def mine(title: str = "a project of mine") -> importers.Importer:
        return importers.Importer(
            title=title,
            places=files("mine.pkl"),
            recognises=lambda content: "theirs" in inside(content),
            read=read_it,
        )

    thinkslow.register("importer", "mine", mine)
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "mine.pkl").write_bytes(pickle.dumps({"theirs": 12}))
    saved = importers.open_agent(tmp_path / "log")
    assert saved.manifest["source"]["project"] == "a project of mine"
    assert saved.manifest["training"]["steps"] == 12
    with pytest.raises(ValueError, match="not by a project of mine"):
        importers.find(tmp_path / "inner", format="mine")
    with pytest.raises(ValueError, match="'sheeprl' is taken"):
        thinkslow.register("importer", "sheeprl", mine)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"agent": {"agent/enc/conv0/kernel": 1}}, "between April and July 2024"),
        ({"params": {"dyn/dyncore/kernel": 1}}, "between April and July 2024"),
        ({"weights": 1}, "no agent of a known project"),
        ([], "no agent of a known project"),
        ({"agent": 3}, "no agent of a known project"),
        ({"params": {}}, "does not hold a whole agent"),
        ({"params": 5}, "no agent of a known project"),
        ({"agent": {"params": {"enc/cnn0/kernel": 1}}}, "does not hold a whole agent"),
    ],
)
def test_what_is_no_agent_that_is_known_says_so(content, said, tmp_path):
    (tmp_path / "checkpoint.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=said) as caught:
        importers.load(tmp_path, classes=4)
    assert "\n" not in str(caught.value)


def test_an_option_that_changes_what_weights_mean_is_refused(tmp_path):
    log = as_danijar(
        tmp_path / "log",
        tiny_dreamer(**SHAPES["one convolution, another kernel"], vision="conv", decoder_blocks=4),
    )
    options = yaml.safe_load((log / "config.yaml").read_text())
    options["agent"]["enc"] = {"simple": {"strided": True}}
    (log / "config.yaml").write_text(yaml.safe_dump(options))
    with pytest.raises(store.Damaged, match=r"`agent\.enc\.simple\.strided` .* must be False"):
        importers.load(log)
    (log / "config.yaml").write_text("!!python/object/apply:os.system [touch tricked]")
    with pytest.raises(store.Damaged, match="is not YAML"):
        importers.load(log)
    (log / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match="`classes=N`"):
        importers.load(log)


# --- wrong weights -------------------------------------------------------------------------------


def state(content: Any) -> dict[str, Any]:
    """The names and arrays of a checkpoint, to change."""
    for key in ("params", "agent_state_dict", "world_model"):
        if key in content:
            return content[key]
    return content["agent"]


def some(arrays: dict[str, Any]) -> str:
    """A weight that is neither square nor frozen."""
    return next(
        name
        for name, x in arrays.items()
        if isinstance(x, Stored)
        and len(x.shape) == 2
        and x.shape[0] != x.shape[1]
        and not name.startswith(("opt", "_frozen"))
        and x.size > 100
    )


def replaced(array: Stored, values: np.ndarray) -> Stored:
    return dataclasses.replace(array, shape=values.shape, dtype=values.dtype, fetch=values.copy)


def changed(folder: Path, change: Any, **options: Any) -> checkpoint.Saved:
    """The agent of a checkpoint whose content was changed."""
    found = importers.find(folder)
    change(state(found.content))
    return saved_from(folder, found, read(found), **options)


@pytest.mark.parametrize("name", MAIN)
def test_a_missing_weight_is_named(name):
    with pytest.raises((store.Misfit, store.Damaged), match=r"missing|of no weight"):
        changed(golden_case(name), lambda arrays: arrays.pop(some(arrays)))


@pytest.mark.parametrize("name", MAIN)
def test_an_unknown_weight_is_named(name):
    def add(arrays: dict[str, Any]) -> None:
        arrays["rssm.surplus.weight"] = arrays[some(arrays)]

    with pytest.raises(store.Misfit, match=r"rssm\.surplus\.weight"):
        changed(golden_case(name), add)


@pytest.mark.parametrize("name", MAIN)
def test_a_transposed_weight_is_refused(name):
    def transpose(arrays: dict[str, Any]) -> None:
        array = arrays[some(arrays)]
        arrays[some(arrays)] = replaced(array, array.read().T.copy())

    with pytest.raises(store.Misfit):
        changed(golden_case(name), transpose)


@pytest.mark.parametrize("name", MAIN)
def test_weights_that_cannot_be_are_refused_unless_allowed(name):
    """A bit that changed in an exponent gave a weight of 1e20, and nothing said so."""

    def spoil(arrays: dict[str, Any]) -> None:
        values = arrays[some(arrays)].read()
        values[0, :3] = np.nan, np.inf, 1e20
        arrays[some(arrays)] = replaced(arrays[some(arrays)], values)

    with pytest.raises(ValueError, match=r"3 of \d+ values of .* are non-finite.*nonfinite"):
        changed(golden_case(name), spoil)
    saved = changed(golden_case(name), spoil, allow_nonfinite=True)
    assert list(saved.manifest["nonfinite"].values()) == [3]


@pytest.mark.parametrize("wrong", [lambda name: name[:-1] + "?", lambda name: "opt/x" + name[5:]])
def test_an_altered_name_in_the_optimiser_tells_that_more_may_be(wrong):
    """A pickle has no checksum: fifty random bytes of one were loaded, and nothing said so."""

    def rename(arrays: dict[str, Any]) -> None:
        name = next(name for name in arrays if name.startswith("opt/state/1/1/"))
        arrays[wrong(name)] = arrays.pop(name)

    with pytest.raises(store.Damaged, match="altered"):
        changed(golden_case("danijar_main-a"), rename)


# --- broken files --------------------------------------------------------------------------------


def weights_of(file: Path, config: Path | None) -> dict[str, np.ndarray] | str:
    """What a file gives: weights, or the one line of its error."""
    try:
        found = dataclasses.replace(importers.find(file), config=config)
        foreign = read(found)
        saved_shapes = {name: array.shape for name, array in foreign.weights.items()}
        checks.match(foreign.weights, saved_shapes, what="")
    except (ValueError, OSError) as error:
        return str(error)
    return foreign.weights


@pytest.mark.parametrize("kilobytes", [slow(16), nightly(1)])
@pytest.mark.parametrize("name", MAIN)
def test_a_file_cut_anywhere_gives_one_error(name, kilobytes, tmp_path):
    found = importers.find(golden_case(name))
    data = found.file.read_bytes()
    file = tmp_path / found.file.name
    # An archive without its end fails at once; of a pickle, all that is there is looked at first,
    # which takes long with every call type-checked: the next test cuts it at every kilobyte.
    pickled = found.format == "dreamerv3"
    for end in range(0, len(data), 1024 * kilobytes * (24 if pickled else 1)):
        file.write_bytes(data[:end])
        error = weights_of(file, found.config)
        assert isinstance(error, str)
        assert "\n" not in error


CUT = """
import sys
from pathlib import Path
from thinkslow.importers.formats import pickles
from thinkslow.storage import store
whole, cut = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
for end in range(0, len(whole), 1024):
    cut.write_bytes(whole[:end])
    try:
        pickles.load(cut)
    except store.Damaged as error:
        assert str(error) and chr(10) not in str(error)
    else:
        sys.exit(f"cut after {end} bytes it was read")
"""


@pytest.mark.slow
def test_a_pickle_cut_at_every_kilobyte_is_damaged(tmp_path):
    """In a process of its own, where calls are not type-checked."""
    whole = importers.find(golden_case("danijar_main-a")).file
    command = [sys.executable, "-c", CUT, str(whole), str(tmp_path / "agent.pkl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("count", [slow(2), nightly(6)])
@pytest.mark.parametrize("name", MAIN)
def test_a_flipped_byte_spoils_one_weight_at_most_or_is_found(name, count, tmp_path):
    """A pickle has no checksum, so that a flip inside of a number cannot be seen; an archive's
    checksums see it. Neither ever moves a weight to another place."""
    found = importers.find(golden_case(name))
    right = read(found).weights
    data = bytearray(found.file.read_bytes())
    rng = np.random.default_rng(0)
    # Half of them in what is not numbers, where a flip changes what the numbers are.
    text = [i for i in rng.integers(0, len(data), 4000) if data[i] in b"/_kernelbiasc\x94R\x85"]
    for where in [*rng.integers(0, len(data), count), *text[:count]]:
        before = data[where]
        data[where] ^= 1 << rng.integers(8)
        file = tmp_path / found.file.name
        file.write_bytes(data)
        data[where] = before
        got = weights_of(file, found.config)
        if isinstance(got, str):
            assert "\n" not in got
            continue
        assert got.keys() == right.keys()
        other = [n for n in right if not np.array_equal(got[n], right[n])]
        assert len(other) <= (name == "danijar_main-a")


# --- fitting to an environment -------------------------------------------------------------------


def saved(**case: Any) -> checkpoint.Saved:
    model = tiny_dreamer(**case)
    return checkpoint.Saved(model, {"name": "theirs", "architecture": "dreamerv3-main"})


def fit(one: checkpoint.Saved, spaces: Any, action: Any) -> Any:
    actions = {"action": action}
    return match_spaces(one.model, None, spaces, actions, name=one.name, id="some/Env-v0")[0]


def test_what_is_alone_of_its_kind_may_have_another_name():
    one = saved(observations={"rgb": image(16), "state": vector(6)}, actions={"act": choice(3)})
    spaces = {"image": image(16), "vector": vector(2, 3)}
    fitted = fit(one, spaces, choice(3))
    assert dict(fitted.observation_spaces) == spaces
    observation = {"rgb": np.ones((16, 16, 3), np.uint8), "state": np.arange(6.0)}
    renamed = {"image": observation["rgb"], "vector": np.arange(6.0).reshape(2, 3)}
    memory = jnp.ones(32)
    before, after = (
        np.asarray(ask(ask(model, "infer", memory, seen), "probs"))
        for model, seen in ((one.model, observation), (fitted, renamed))
    )
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_which_of_several_an_agent_sees_is_not_guessed():
    """It was the first of those whose names are others, fit or not."""
    one = saved(observations={"state": vector(6)}, actions={"act": choice(3)})
    with pytest.raises(store.Misfit, match="its state may be any of goal, speed"):
        fit(one, {"goal": vector(6), "speed": vector(6)}, choice(3))
    fitted = fit(one, {"goal": vector(2), "speed": vector(6)}, choice(3))
    assert [*dict(fitted.observation_spaces)] == ["speed"]


@pytest.mark.parametrize(
    ("spaces", "action", "said"),
    [
        (
            {"image": image(24)},
            choice(9),
            "its image is 16x16x3, the environment's 24x24x3 (make it with `size` 16)",
        ),
        ({"image": image(16, 1)}, choice(9), "16x16x3, the environment's 16x16x1"),
        ({"vector": vector(3)}, choice(9), "sees the image, the environment shows no image"),
        ({"image": image(16)}, choice(4), "one of 9 actions, the environment one of 4 actions"),
        ({"image": image(16)}, vector(9), "one of 9 actions, the environment 9 continuous"),
        ({"image": image(16)}, choice(15), "the 9 of IMPALA and the 15 of PopArt"),
        ({"image": image(8)}, choice(4), "8x8x3 (make it with `size` 16); it takes one of 9"),
    ],
)
def test_a_mismatch_is_told_field_by_field(spaces, action, said):
    one = saved(observations={"image": image(16)}, actions={"action": choice(9)})
    with pytest.raises(store.Misfit) as caught:
        fit(one, spaces, action)
    assert said in str(caught.value)


def test_vectors_that_differ_are_told():
    one = saved(observations={"a": vector(3), "b": choice(4)})
    for spaces, part in (
        ({"a": vector(4), "b": choice(4)}, "its a has 3 numbers, the environment's 4"),
        ({"a": vector(3), "b": vector(4)}, "its b is discrete, the environment's continuous"),
        ({"a": vector(3)}, "it sees the vector b, the environment shows a"),
    ):
        with pytest.raises(store.Misfit) as caught:
            fit(one, spaces, choice(3))
        assert part in str(caught.value)


# --- the command line ----------------------------------------------------------------------------


@pytest.fixture
def environments(monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def play(*arguments: Any, out: Path) -> dict[str, Any]:
    """What `evaluate` wrote."""
    given = ["evaluate", *map(str, arguments), "--episodes", "2", "--batch", "2", "--json"]
    assert main([*given, "--out", str(out)]) == 0
    return json.loads((out / "summary.json").read_text())


@pytest.mark.slow
@pytest.mark.usefixtures("environments")
def test_an_agent_of_another_project_plays_arms_of_every_kind(tmp_path, capsys):
    """Refined, gated, with more of the past, a control; each arm alone is tried elsewhere."""
    arms = ("none", "evidence-in-doubt", "control-particles-16")
    summary = play(
        golden_case("danijar_main-a"),
        "--env",
        "tiny_envs:tiny/Foreign-v0",
        "--arms",
        ",".join(arms),
        out=tmp_path,
    )
    assert [arm["arm"] for arm in summary["arms"]] == [*arms]
    assert all(np.isfinite(arm["score"]["mean"]) for arm in summary["arms"])
    assert all(arm["belief_kl"] > 0 for arm in summary["arms"] if arm["thinking"]["steps"])
    err = capsys.readouterr().err
    assert "danijar/dreamerv3 since December 2024, 4,567 steps" in err
    assert "sees image 64x64x3; does action one of 17" in err


@pytest.mark.slow
def test_an_agent_of_another_project_plays_crafter_where_it_is_installed(tmp_path, monkeypatch):
    pytest.importorskip("crafter")
    examples = Path(__file__).parents[1] / "examples"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(examples), *sys.path]))
    monkeypatch.syspath_prepend(str(examples))
    summary = play(
        golden_case("danijar_main-a"),
        "--env",
        "crafter_env:thinkslow-example/Crafter-v0",
        "--arms",
        "none,control-soft",
        out=tmp_path,
    )
    assert all(arm["length"]["mean"] > 1 for arm in summary["arms"])
    assert all(np.isfinite(arm["psnr"]["mean"]) for arm in summary["arms"])


@pytest.mark.slow
@pytest.mark.usefixtures("environments")
@pytest.mark.parametrize(
    ("name", "arms"),
    [("r2dreamer-b", "none,control-soft"), ("dreamerv3_v150-b", "none,evidence")],
)
def test_vectors_and_continuous_actions_are_played(name, arms, tmp_path, capsys):
    summary = play(
        golden_case(name),
        "--env",
        "tiny_envs:tiny/ForeignVectors-v0",
        "--arms",
        arms,
        out=tmp_path,
    )
    assert summary["agents"][0]["action"] == ("mode" if name == "r2dreamer-b" else "sample")
    assert [arm["psnr"] is not None for arm in summary["arms"]] == [True, True]
    assert ("takes the mode of its policy" in capsys.readouterr().err) == (name == "r2dreamer-b")


@pytest.mark.slow
@pytest.mark.usefixtures("environments")
def test_an_agent_without_a_decoder_plays_the_arms_that_it_can(tmp_path, capsys):
    folder = golden_case("r2dreamer-a-nodecoder")
    environment = ("--env", "tiny_envs:tiny/Foreign-v0", "--action", "sample")
    summary = play(folder, *environment, out=tmp_path)
    assert [arm["arm"] for arm in summary["arms"]] == [
        "none",
        "control-mode",
        "control-soft",
        "entropy-3",
    ]
    assert all(arm["psnr"] is None for arm in summary["arms"])
    assert summary["agents"][0]["action"] == "sample"
    assert "it has no decoder" in capsys.readouterr().err
    assert main(["evaluate", str(folder), *environment, "--arms", "evidence"]) == 2
    told = capsys.readouterr().err
    assert "it has no decoder" in told
    assert "--arms" in told


@pytest.mark.parametrize(
    "name", ["danijar_main-b", slow("r2dreamer-a-nodecoder"), slow("sheeprl-a")]
)
def test_inspect_tells_what_was_found(name, capsys):
    assert main(["inspect", str(golden_case(name)), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["source"]["file"].startswith(str(golden_case(name)))
    assert facts["parameters"]["total"] > 10_000
    assert ("decode" in facts["cannot"]) == ("nodecoder" in name)


def test_import_writes_what_every_command_reads(tmp_path, capsys):
    log = as_danijar(
        tmp_path / "log",
        tiny_dreamer(**SHAPES["one convolution, another kernel"], vision="conv", decoder_blocks=4),
    )
    assert main(["import", str(log), str(tmp_path / "ours")]) == 0
    assert main(["inspect", str(tmp_path / "ours"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["source"]["format"] == "dreamerv3"
    assert main(["import", str(log), str(tmp_path / "ours")]) == 0  # the same once more
    other = as_danijar(tmp_path / "other", tiny_dreamer(**SMALL))
    assert main(["import", str(other), str(tmp_path / "ours")]) == 1
    assert "holds another agent" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "ours"), str(tmp_path / "again")]) == 2
    assert "already an agent" in capsys.readouterr().err
    assert main(["import", str(log), str(tmp_path / "x"), "--format", "r2dreamer"]) == 1
    assert "not by NM512/r2dreamer" in capsys.readouterr().err


def test_an_environment_that_is_not_stored_is_asked_for_with_suggestions(tmp_path, capsys):
    log = as_danijar(
        tmp_path / "log",
        tiny_dreamer(**SHAPES["one convolution, another kernel"], vision="conv", decoder_blocks=4),
    )
    assert main(["evaluate", str(log)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "its task was gym_cartpole. Pass --env, perhaps one of CartPole-v" in line


def test_weights_that_are_not_finite_are_said_on_the_command_line(tmp_path, capsys):
    model = tiny_dreamer(
        **SHAPES["one convolution, another kernel"], vision="conv", decoder_blocks=4
    )
    bad = np.asarray(named(model)["dyn/obs0/bias"]).copy()
    bad[0] = np.nan
    log = as_danijar(tmp_path / "log", model, **{"dyn/obs0/bias": bad})
    assert main(["inspect", str(log)]) == 1
    assert "1 of 16 values of dyn/obs0/bias are non-finite" in capsys.readouterr().err
    assert main(["inspect", str(log), "--allow-nonfinite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nonfinite"] == {"dyn/obs0/bias": 1}
