"""What a command says of itself: help, lists, the nearest name, flags that change nothing."""

import contextlib
import dataclasses
import functools
import importlib
import io
import json
import pickle
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from thinkslow import registry, zoo
from thinkslow.cli import COMMANDS, MODULES, evaluate, flags, main, parsing, progress
from thinkslow.cli.arms import TITLES, WAYS
from thinkslow.cli.modules import load_modules

FORMATS = tuple(registry.entries("importer"))
"""Ours: read before a test of this process registers another."""


def module(command: str):
    return importlib.import_module(f"thinkslow.cli.{MODULES.get(command, command)}")


@functools.cache
def shown(command: str) -> str:
    """What `--help` of a command prints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main([command, "--help"]) == 0
    assert not err.getvalue()
    return out.getvalue()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_three_examples_that_parse(command):
    lines = [line for line in shown(command).splitlines() if line.startswith("  thinkslow ")]
    assert len(lines) >= 3
    assert any(line.startswith(f"  thinkslow {command}") for line in lines)
    for line in lines:
        _, name, *words = shlex.split(line.partition(" > ")[0].replace("--import my_terms.py", ""))
        module(name).parse(words)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("command", ["evaluate", "demo", "study"])
def test_help_breaks_between_words_at_the_width_of_a_terminal(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.redirect_stdout(Terminal()) as out:
        assert main([command, "--help"]) == 0
    text = re.sub(r"\x1b\[[0-9;]*m|\u200b", "", out.getvalue()).partition("\nexamples:")[0]
    prose = text.partition("\n\n")[2].splitlines()
    assert len(prose) > 4
    assert max(map(len, prose)) <= 80
    assert " ".join(text.split()) in " ".join(shown(command).split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns_of_a_file_too(command, monkeypatch):
    """A paragraph was one line of 365 letters, and an example was wrapped by the terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = shown(command).splitlines()
    assert max(len(line) for line in lines if not line.startswith("usage:")) <= 80
    assert not any("\u200b" in line for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_speaks_of_values_and_not_of_python(command):
    out = shown(command)
    assert f"usage: thinkslow {command}" in out
    assert "output options" in out
    assert "--json " in out
    assert "\n\n\n" not in out
    for machinery in ("None", "--json True", "{", "FLOAT", "INT ", "STR", "--no-", "(default: )"):
        assert machinery not in re.sub(r"[{]auto,.*[}]", "", out), machinery


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_a_sentence_of_a_group(command):
    kinds = [module(command).Options]
    for kind in kinds:
        for field in dataclasses.fields(kind):
            owner = next(one for one in kind.__mro__ if field.name in one.__annotations__)
            if dataclasses.is_dataclass(field.default_factory):
                kinds.append(field.default_factory)
                continue
            text = parsing.documentation(owner).get(field.name, "") or flags.TEXTS[field.name]
            assert text[:1].isupper() or text.startswith("`"), f"{field.name}: {text}"
            assert text.endswith("."), f"{field.name}: {text}"


@pytest.mark.parametrize(
    "arguments", [["help", "evaluate"], ["evaluate", "--help"], ["evaluate", "-h"]]
)
def test_help_may_be_asked_for_in_three_ways(arguments, capsys):
    assert main(arguments) == 0
    assert "usage: thinkslow evaluate" in capsys.readouterr().out
    assert main(["help"]) == 0


def test_help_of_a_format_names_every_project():
    words = set(re.findall(r"[\w.-]+", shown("inspect")))
    missing = {name for name in FORMATS if name not in words and f"{name}." not in words}
    assert not missing


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["evalaute", "x"], "evaluate"),
        (["evaluate", "x", "--arms", "none,evidnce"], "evidence"),
        (["evaluate", "x", "--gate", "surprize"], "surprise"),
        (["evaluate", "x", "--terms", "evidnce"], "evidence"),
        (["evaluate", "x", "--update", "miror"], "mirror"),
        (["evaluate", "x", "--readout", "sofft"], "soft"),
        (["evaluate", "x", "--members", "nois:0.1"], "noise"),
        (["evaluate", "x", "--format", "sheperl"], "sheeprl"),
        (["evaluate", "colect-good"], "collect-good"),
        (["inspect", "colect-good"], "collect-good"),
        (["train", "CartPole-v1", "--steps", "9", "--preset", "siz1m"], "size1m"),
        (["evaluate", "collect-half", "--shift", "dropt:3"], "dropped"),
        (["evaluate", "collect-half", "--terms", "evidence:bata=1"], "beta"),
        (["evaluate", "collect-half", "--arms", "values:horizn=3"], "horizon"),
        (["arms", "evidnce"], "evidence"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(arguments, near, capsys):
    assert main(arguments) in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "Did you mean" in err
    assert near in err.split("Did you mean")[1]


@pytest.mark.parametrize("given", [["--minutes", "ten"], ["--minutes=ten"]])
def test_a_number_that_is_none_is_told_in_words(given, capsys):
    assert main(["train", "CartPole-v1", *given]) == 2
    err = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "must be a number, such as" in err
    assert "'ten'" in err
    assert "None" not in err


def test_a_truth_value_that_is_none_is_told_in_words(capsys):
    """It was told that one of True, False and None was expected."""
    assert main(["evaluate", "collect-half", "--accept", "perhaps"]) == 2
    err = capsys.readouterr().err
    assert "True or False" in err
    assert "None" not in err


@pytest.mark.parametrize("name", ["README.md", "pyproject.toml", "LICENSE"])
def test_a_file_that_is_no_checkpoint_is_called_so(name, capsys):
    """The README `holds the unknown instruction b'#'` and was to be copied again."""
    path = Path(__file__).parents[1] / name
    if not path.exists():
        pytest.skip("the documents are not beside the tests")
    assert main(["inspect", str(path)]) == 1
    err = capsys.readouterr().err
    assert "is not a checkpoint" in err
    assert "opy it" not in err


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "collect-half", "--out", "s3://bucket/result"],
        ["train", "CartPole-v1", "--steps", "9", "--run", "gs://bucket/run"],
        ["inspect", "https://example.org/agent"],
    ],
)
def test_an_address_is_not_taken_for_a_folder(words, tmp_path, monkeypatch, capsys):
    """Results for `s3://bucket` went into a folder `s3:` of the working folder."""
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "path must be on this machine; got the address" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["runs/one/config.json", ".", "..terms", ""])
def test_what_cannot_be_a_module_is_not_imported(name, capsys):
    """There was `no module named runs/one/config`, and Python's words on relative imports."""
    assert main(["arms", "--import", name]) == 2
    assert "--import must be a module" in capsys.readouterr().err


def test_an_agent_of_ours_is_not_imported_again(tmp_path, capsys):
    """A bundled agent was written, and then there was a KeyError."""
    assert main(["import", "collect-half", str(tmp_path / "copy")]) == 2
    assert "already an agent" in capsys.readouterr().err
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("arguments", [["--version"], ["-v"], ["-V"], ["version"]])
def test_the_version_may_be_asked_for_in_every_usual_way(arguments, capsys):
    assert main(arguments) == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_arms_lists_every_name_with_what_it_is(capsys):
    assert main(["arms"]) == 0
    out = capsys.readouterr().out
    for kind in WAYS:
        for name, entry in registry.entries(kind).items():
            assert re.search(rf"^[* ] {re.escape(name)} +{re.escape(entry.about[:20])}", out, re.M)
    assert main(["arms", "--json", "mirror"]) == 0
    assert set(json.loads(capsys.readouterr().out)["update"]) == {"mirror"}


def test_arms_lists_what_a_module_of_yours_registers(tmp_path, capsys):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from thinkslow import register\n"
        "from thinkslow.objectives import Anchor\n"
        "register('term', 'listed-here', Anchor, 'a term of mine')\n"
    )
    assert main(["arms", "--import", str(mine)]) == 0
    assert "listed-here" in capsys.readouterr().out


def test_a_module_of_yours_replaces_no_other_and_a_failed_one_is_not_kept(tmp_path):
    """`--import json.py` replaced the `json` of Python."""
    mine, broken = tmp_path / "json.py", tmp_path / "broken_here.py"
    mine.write_text("class Kept: pass")
    broken.write_text("1 / 0")
    load_modules([str(mine)])
    assert sys.modules["json"] is json
    (own,) = [one for one in sys.modules.values() if getattr(one, "__file__", "") == str(mine)]
    assert pickle.loads(pickle.dumps(own.Kept)) is own.Kept
    for _ in range(2):  # the second time it is run again
        with pytest.raises(ValueError, match="ZeroDivisionError"):
            load_modules([str(broken)])
    assert "broken_here" not in sys.modules


def test_agents_lists_the_bundled_ones(capsys):
    assert main(["agents", "--json"]) == 0
    agents = json.loads(capsys.readouterr().out)["agents"]
    assert [one["name"] for one in agents] == zoo.names()
    assert all(one["updates"] > 0 for one in agents)


@pytest.mark.parametrize(
    ("arms", "given", "idle"),
    [
        ("none", ["--steps", "5"], {"steps"}),
        ("none,control-mode", ["--max-kl", "1"], {"max_kl"}),
        ("none,sig-3", ["--steps", "1"], {"steps"}),
        ("none,sig-3", ["--steps", "2"], set()),
        ("none,evidence", ["--horizon", "8"], {"horizon"}),
        ("none,evidence,sig-3", ["--horizon", "8"], set()),
        ("none,evidence", ["--terms", "sig", "--horizon", "8"], set()),
        ("none,evidence", ["--judges", "4"], {"judges"}),
        ("none,evidence", ["--judges", "4", "--accept", "True"], set()),
        ("none,evidence", ["--share", "0.5", "--gate", "surprise"], set()),
        ("none,evidence", ["--share", "0.2"], {"share"}),
        ("none,evidence", ["--share", "0.2", "--gate", "surprise"], set()),
        ("none,sig-3", ["--steps", "0"], set()),
        ("none,robust", ["--check", "masked"], set()),  # it had changed nothing anywhere
        ("none,evidence", ["--check", "masked"], {"check"}),
        ("none,values", ["--choice", "shuffled"], set()),
    ],
)
def test_a_flag_that_changes_nothing_in_this_call_is_named(arms, given, idle):
    options = evaluate.parse(["agent", "--arms", arms, *given])
    found = flags.without_effect(flags.given(options.changes), evaluate.chosen(options))
    assert set(found) == idle
    assert "share" not in found or "--gate" in found["share"]


def test_a_wrong_agent_is_told_before_jax_is_imported():
    """It was told when the compiler and the environments had been loaded, seconds later."""
    code = (
        "import sys; from thinkslow.cli import main\n"
        "assert main(['evaluate', 'colect-half']) == 1 and main(['gap', 'no/folder']) == 1\n"
        "assert main(['import', 'no/folder', 'there']) == 1 and 'jax' not in sys.modules"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert told.stderr.count("There is no file, folder or bundled agent") == 3


def test_arms_begin_with_none_and_every_list_has_its_flag(capsys):
    """`values` came before `none`, and the gates were headed by the word gate alone."""
    assert set(TITLES) == set(WAYS)
    assert main(["arms"]) == 0
    headed, first, *_ = capsys.readouterr().out.splitlines()
    assert "--arms" in headed
    assert first.startswith("* none ")


def test_a_message_does_not_list_a_hundred_names(capsys):
    for arguments in (["arms", "zzz"], ["evaluate", "collect-half", "--arms", "zzz"]):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert "`thinkslow arms` lists the names" in said
        assert len(said) < 120


def test_without_a_terminal_an_evaluation_names_each_part_once(monkeypatch):
    said: list[str] = []
    show = progress.BlockLines(said.append)
    for what, done in (("none", 0), ("none", 0), ("none", 1), ("evidence", 1), ("evidence", 2)):
        show(what, done, 4)
    assert [line.split()[0] for line in said] == ["none", "evidence"]
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    show("evidence", 3, 4)
    assert "3 of 4" in said[-1]
    show.again()
    assert said[-1] == said[-2]
    monkeypatch.setattr(progress, "LONG", 0.0)
    show.again()
    assert said[-1].startswith(f"{said[-2]}, for ")


def test_without_a_terminal_a_line_also_comes_while_a_program_compiles(monkeypatch):
    """A bank was silent for three minutes."""
    spoken = threading.Event()

    def say(line: str) -> None:
        if line.startswith("judging (0 of 3 done), for "):
            spoken.set()

    monkeypatch.setattr(progress, "LINE_EVERY", 0.01)
    monkeypatch.setattr(progress, "LONG", 0.01)
    with progress.block_lines(say) as show:
        show("judging", 0, 3)
        assert spoken.wait(timeout=60)
