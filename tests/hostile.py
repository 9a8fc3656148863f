"""Mutated checkpoints of every format, and a reader under limits that judges what came of them.

    python tests/hostile.py [--count N] [--seed S] [FORMAT ...]

A mutant is a folder with one thing wrong: a flipped bit, a hostile pickle, a bomb, a link to a
device, an option that cannot be. The reader runs in a process of its own with 2 GiB of memory
more than it needs, is stopped after 20 s, and reports every event by which a file could have had
its way: a process, a socket, a file opened for writing, an import of what the file named.
"""

import argparse
import collections
import hashlib
import io
import itertools
import json
import os
import pickletools
import random
import resource
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
LIMIT_S, SPARE = 20, 2 * 2**30
AGENT = HERE.parent / "src" / "thinkslow" / "zoo" / "collect-half"
BUNDLED = HERE / "data" / "golden" / "danijar_main-b"
GOLDEN = (HERE.parents[1] / "shared" / "golden").resolve()


class Format(NamedTuple):
    source: Path
    main: str
    """The file of weights."""
    config: str | None
    classes: int | None = None


FORMATS = {
    "ours": Format(AGENT, "weights.safetensors", "manifest.json"),
    "dreamerv3": Format(BUNDLED, "ckpt/20261122T112854F094901/agent.pkl", "config.yaml"),
    "dreamerv3-2024": Format(GOLDEN / "danijar_dec2024-a", "checkpoint.pkl", None, 8),
    "dreamerv3-v1": Format(GOLDEN / "dreamerv3_v150-a", "checkpoint.ckpt", "config.yaml"),
    "dreamerv3-torch": Format(GOLDEN / "nm512_torch-a", "latest.pt", None, 8),
    "r2dreamer": Format(GOLDEN / "r2dreamer-a", "latest.pt", ".hydra/config.yaml"),
    "sheeprl": Format(
        GOLDEN / "sheeprl-a", "version_0/checkpoint/ckpt_4096_0.ckpt", "version_0/config.yaml"
    ),
    "sheeprl-3.5": Format(
        GOLDEN / "sheeprl_v35-a", "version_0/checkpoint/ckpt_4096_0.ckpt", "version_0/config.yaml"
    ),
}


class Mutant(NamedTuple):
    kind: str
    label: str
    write: Callable[[Path], None]
    """Changes the copy of a sound folder."""
    may_change: bool = False
    """Whether no reader could tell: a bit inside a number, a checksum that was made anew."""


# --- mutants -------------------------------------------------------------------------------------

COMMAND = b"touch CANARY"
SYSTEM = b"cos\nsystem\n"


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def programs() -> dict[str, bytes]:
    """Pickles that ask for something else than arrays."""
    call = text(COMMAND)
    return {
        "REDUCE": b"\x80\x02" + SYSTEM + call + b"\x85R.",
        "REDUCE of eval": b"\x80\x02cbuiltins\neval\n" + text(b"1+1") + b"\x85R.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + call + b"\x85R.",
        "dotted name": b"\x80\x04\x8c\x05optax\x8c\x11__builtins__.eval\x93" + call + b"\x85R.",
        "INST": b"(" + call + b"ios\nsystem\n.",
        "OBJ": b"(" + SYSTEM + call + b"o.",
        "NEWOBJ": b"\x80\x02" + SYSTEM + call + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04" + SYSTEM + call + b"\x85}\x92.",
        "BUILD": b"\x80\x04\x8c\x05optax\x8c\x01X\x93)R}\x8c\x0c__setstate__" + SYSTEM + b"sb.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "PERSID": b"Pposix.system\n.",
        "BINPERSID": b"\x80\x02(" + text(b"storage") + b"NK\x00K\x01K\x01tQ.",
        "objects": b"\x80\x02cnumpy\ndtype\n" + text(b"O") + b"\x85R.",
        "escape codes": b"\x80\x04\x8c\x0e\x1b[31mx\x1b]0;hi\x07\x8c\x06system\x93.",
        "itself": b"\x80\x02}q\x00" + text(b"agent") + b"h\x00s.",
        "empty": b"",
    }


def bombs() -> dict[str, bytes]:
    """Small pickles that ask for much memory or time."""
    prime = 2**61 - 1
    many = b"".join(
        b"\x8a\x0b" + (prime * i).to_bytes(11, "little") + b"N" for i in range(1, 60_000)
    )
    pushed = b"N" * 200_000
    copies = b"h\x00h\x01\x85R" * 300_000
    sizes = b"h\x02h\x00\x85R" * 200_000
    calls = b"h\x02h\x00R0" * 200_000
    return {
        "texts encoded again": b"\x80\x02c_codecs\nencode\nq\x00"
        + text(b"a" * 2**20)
        + b"q\x0100"
        + copies
        + b".",
        "sizes": b"\x80\x02(" + pushed + b"tq\x000ctorch\nSize\nq\x020" + sizes + b".",
        "arguments": b"\x80\x02(" + pushed + b"tq\x000cnumpy\nndarray\nq\x020" + calls + b"N.",
        "equal hashes": b"\x80\x02}(" + many + b"u.",
        "deep lists": b"\x80\x02" + b"]" * 400_000 + b"a" * 399_999 + b".",
        "deep tuples": b"\x80\x02N" + b"\x85" * 900_000 + b".",
        "endless": b"\x80\x02" + b"N" * 2_100_000 + b".",
        "a long text": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b".",
        "a long array": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b".",
        "a long number": b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"\x01.",
        "the same array": b"\x80\x02}"
        + text(b"params")
        + b"}(cnumpy.core.numeric\n_frombuffer\n("
        + b"B"
        + struct.pack("<I", 2**20)
        + bytes(2**20)
        + b"cnumpy\ndtype\n"
        + text(b"f4")
        + b"\x85RJ"
        + struct.pack("<i", 2**18)
        + b"\x85"
        + text(b"C")
        + b"tRq\x010"
        + b"".join(text(b"a%d" % i) + b"h\x01" for i in range(4000))
        + b"us.",
    }


def configurations(sound: str) -> dict[str, bytes]:
    """YAML that is more than options."""
    aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    merges = "m0: &m0 {k: 1}\n" + "".join(
        f"m{i}: &m{i} {{<<: [{','.join([f'*m{i - 1}'] * 10)}]}}\n" for i in range(1, 9)
    )
    texts = {
        "aliases": aliases + sound,
        "aliases that are read": sound + aliases + "seed2: *a11\n",
        "merges": merges + sound,
        "deep": "x: " + "[" * 100_000 + "\n" + sound,
        "sixties": "big: " + "1" + ":10" * 80_000 + "\n" + sound,
        "a call": "x: !!python/object/apply:os.system ['touch CANARY']\n" + sound,
        "a date": "when: 2020-01-01\n" + sound,
        "a set": "some: !!set {a, b}\n" + sound,
        "not finite": "bad: .nan\nworse: -.inf\n" + sound,
        "a list for a name": "? [1]\n: 2\n" + sound,
        "twice": sound + "\n" + sound,
        "nothing": "",
        "a word": "hello",
        "binary": "\0" + sound,
        "huge": sound + "\n# " + "x" * 2**21,
        "itself": "x: &x {y: *x}\n" + sound,
        "digits": "n: " + "9" * 100_000 + "\n" + sound,
    }
    return {name: text.encode() for name, text in texts.items()}


VALUES = (
    "null",
    "-1",
    "0",
    "1e400",
    "1e18",
    "999999999999",
    ".nan",
    ".inf",
    "''",
    "[]",
    "{}",
    "true",
    "'../../etc'",
    "[[1]]",
    "1.5",
    "'${'",
    "'${a.b.c}'",
)
TARGETS = ("/dev/zero", "/dev/null", "/etc/passwd", "nowhere", "..", "/proc/self/mem")


def mutants(name: str, rng: random.Random) -> Iterator[Mutant]:
    """An endless stream: the special ones first in random order, then random damage."""
    form = FORMATS[name]
    data = (form.source / form.main).read_bytes()
    special = list(_special(form, data))
    rng.shuffle(special)
    yield from special
    config = (form.source / form.config).read_bytes() if form.config else b""
    numbers = _numbers(form, data)
    while True:
        yield _damaged(form, data, config, numbers, rng)


def _special(form: Format, data: bytes) -> Iterator[Mutant]:
    for where in filter(None, (form.main, form.config)):
        for target in (*TARGETS, Path(where).name):
            yield Mutant("link", f"{where} -> {target}", _link(where, target))
        yield Mutant("link", f"{where}: a pipe", _other(where, os.mkfifo))
        yield Mutant("link", f"{where}: a folder", _other(where, Path.mkdir))
        yield Mutant("link", f"{where}: missing", lambda folder, at=where: (folder / at).unlink())
        yield Mutant(
            "link", f"{where}: 3 GB", lambda folder, at=where: os.truncate(folder / at, 3 * 2**30)
        )
    for cut in (0, 1, 8, 100, len(data) // 2, len(data) - 22, len(data) - 1):
        yield Mutant("cut", f"{cut} bytes", _put(form.main, data[:cut]))
    for label, program in [*programs().items(), *bombs().items()]:
        kind = "program" if label in programs() else "bomb"
        if form.main.endswith(".safetensors"):
            yield Mutant(kind, label, _put(form.main, program))
        elif zipfile.is_zipfile(io.BytesIO(data)):
            packed = _rebuilt(data, {"data.pkl": program})
            yield Mutant(kind, label, _put(form.main, packed))
        else:
            yield Mutant(kind, label, _put(form.main, program))
            yield Mutant(kind, f"sound, then {label}", _put(form.main, data[:-1] + program))
    if form.config and form.config.endswith(".yaml"):
        sound = (form.source / form.config).read_text()
        for label, content in configurations(sound).items():
            yield Mutant("config", label, _put(form.config, content), may_change=True)
        lines = sound.splitlines()
        for i, line in enumerate(lines):
            if line.partition(":")[2].strip():
                value = VALUES[i % len(VALUES)]
                new = "\n".join([*lines[:i], f"{line.partition(':')[0]}: {value}", *lines[i + 1 :]])
                yield Mutant(
                    "config",
                    f"{line.strip()[:40]} = {value}",
                    _put(form.config, new.encode()),
                    may_change=True,
                )
    if form.config == "manifest.json":
        yield from _manifests(form)


def _manifests(form: Format) -> Iterator[Mutant]:
    """Our manifest with a fact that cannot be, under a checksum made anew."""
    sound = json.loads((form.source / "manifest.json").read_text())
    values: tuple[Any, ...] = (
        10**9,
        -1,
        0,
        None,
        "x" * 100_000,
        1e308,
        [1],
        {},
        {"a": 1},
        True,
        "\x1b[31m",
        "../../x",
    )
    paths = [(key,) for key in sound if key not in ("format", "checksum")]
    paths += [("model", key) for key in sound["model"]]
    paths += [(p, k) for p in ("environment", "training") for k in sound[p] if k != "curve"]
    for i, path in enumerate(paths):
        for value in values[i % 3 :: 3]:
            manifest = json.loads(json.dumps(sound))
            at = manifest
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = value
            yield Mutant(
                "signed",
                f"{'.'.join(path)} = {str(value)[:20]!r}",
                _signed(manifest),
                may_change=True,
            )


def _damaged(
    form: Format, data: bytes, config: bytes, numbers: list[tuple[int, int]], rng: random.Random
) -> Mutant:
    """One to three bytes of the weights or the configuration, or a stretch of zeros."""
    if config and rng.random() < 0.3:
        raw = bytearray(config)
        where = rng.randrange(len(raw))
        raw[where] ^= 1 << rng.randrange(8)
        assert form.config
        may = form.config != "manifest.json"
        return Mutant("flip", f"{form.config} at {where}", _put(form.config, bytes(raw)), may)
    raw = bytearray(data)
    if rng.random() < 0.15:
        length = rng.choice([1, 8, 512, 4096])
        where = rng.randrange(max(1, len(raw) - length))
        changed = [i for i in range(where, min(where + length, len(raw))) if raw[i]]
        raw[where : where + length] = bytes(min(length, len(raw) - where))
    else:
        changed = [_spot(len(data), numbers, rng) for _ in range(rng.randint(1, 3))]
        # One in a number changes the weights whatever the others do, and nothing can tell.
        changed = [where for where in changed if not _within(where, numbers)] or changed
        for where in changed:
            raw[where] ^= 1 << rng.randrange(8)
    inside = all(_within(where, numbers) for where in changed)
    return Mutant("flip", f"{form.main} at {changed[:3]}", _put(form.main, bytes(raw)), inside)


def _spot(size: int, numbers: list[tuple[int, int]], rng: random.Random) -> int:
    """A byte: mostly of what says what the numbers are, which is little of a file."""
    for _ in range(200):
        where = rng.randrange(size)
        if not _within(where, numbers):
            return where
    return rng.randrange(size)


def _within(where: int, stretches: list[tuple[int, int]]) -> bool:
    return any(a <= where < b for a, b in stretches)


def _numbers(form: Format, data: bytes) -> list[tuple[int, int]]:
    """Stretches of a pickle that are numbers; no checksum covers them."""
    if not form.main.endswith((".pkl", ".ckpt")) or zipfile.is_zipfile(io.BytesIO(data)):
        return []
    out, steps = [], list(pickletools.genops(data))
    for (op, value, _), (_, _, end) in itertools.pairwise(steps):
        if op.name in ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8") and value:
            out.append((end - len(value), end))  # pyright: ignore
    return out


def _put(where: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / where).write_bytes(content)

    return write


def _link(where: str, target: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / where).unlink()
        (folder / where).symlink_to(target)

    return write


def _other(where: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / where).unlink()
        make(folder / where)

    return write


def _signed(manifest: dict[str, Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        content = {key: value for key, value in manifest.items() if key != "checksum"}
        plain = json.dumps(content, sort_keys=True, separators=(",", ":"))
        content["checksum"] = hashlib.sha256(plain.encode()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(content))

    return write


def _rebuilt(data: bytes, changes: dict[str, bytes]) -> bytes:
    """An archive with other content in some entries, its checksums made anew."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            name = entry.filename.rpartition("/")[2]
            new.writestr(entry.filename, changes.get(name, old.read(entry)))
    return out.getvalue()


# --- the reader ----------------------------------------------------------------------------------


def serve() -> None:
    """Reads folders named on standard input, under limits, and says what came of each."""
    import numpy as np

    from thinkslow import importers
    from thinkslow.importers.formats import pickles
    from thinkslow.storage import store
    from thinkslow.weights import named

    events: list[str] = []

    def watch(event: str, given: tuple[Any, ...]) -> None:
        if event in (
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "os.fork",
            "socket.connect",
            "pickle.find_class",
            "shutil.rmtree",
            "os.remove",
        ):
            events.append(event)
        elif event == "subprocess.Popen" and Path(str(given[0])).name != "git":
            events.append(f"{event} {given[0]}")
        elif event == "open" and isinstance(given[1], str) and set(given[1]) & set("wax+"):
            events.append(f"write {given[0]}")

    def digest(saved: Any) -> tuple[str, str]:
        arrays = dict(named(saved.model))
        if saved.members is not None:
            arrays |= {f"members/{n}": x for n, x in named(saved.members.differing).items()}
        weights = hashlib.sha256()
        for name in sorted(arrays):
            weights.update(name.encode() + np.asarray(arrays[name]).tobytes())
        left_out = ("source", "versions", "revision", "name", "checksum")
        facts = {key: value for key, value in saved.manifest.items() if key not in left_out}
        return weights.hexdigest(), repr(sorted(facts.items()))

    first, classes = json.loads(sys.stdin.readline())
    sound = digest(importers.open_agent(Path(first), classes=classes))
    sys.dont_write_bytecode = True  # of modules that a mutant is the first to import
    sys.addaudithook(watch)
    status = Path("/proc/self/status").read_text()
    most = int(status.split("VmSize:")[1].split()[0]) * 1024 + SPARE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        events.clear()
        try:
            found = digest(importers.open_agent(Path(json.loads(line)), classes=classes))
            result = (
                "same"
                if found == sound
                else ("other facts" if found[0] == sound[0] else "other weights")
            )
        except (store.Damaged, store.Missing, store.Misfit, pickles.Refused) as error:
            result = _clear(error)
        except MemoryError:
            result = "memory"
        except (ValueError, OSError) as error:
            result = _clear(error)
        except BaseException as error:
            result = f"unexpected {type(error).__name__}: {str(error)[:300]}"
        print(json.dumps([result, [e for e in events if "/proc/self" not in e]]), flush=True)


def _clear(error: Exception) -> str:
    message = str(error)
    good = message and len(message) <= 1500 and message.isprintable()
    return "refused" if good else f"unclear {type(error).__name__}: {message[:200]!r}"


class Reader:
    """A process that reads one mutant after the other, and is started again where one kills it."""

    def __init__(self, name: str, sound: Path):
        self.form, self.sound = FORMATS[name], sound
        self.process: subprocess.Popen | None = None

    def __call__(self, folder: Path) -> tuple[str, list[str]]:
        if self.process is None:
            self.process = self._start()
        answer = self._ask(str(folder), LIMIT_S)
        if answer is None:
            dead = self.process.poll() is not None
            self.close()
            return ("memory" if dead else "hang"), []
        return answer[0], answer[1]

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                assert pipe
                pipe.close()
            self.process = None

    def _start(self) -> subprocess.Popen:
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        assert self._ask([str(self.sound), self.form.classes], 300) == "ready"
        return self.process

    def _busy_s(self) -> float:
        """Seconds of the processor that the reader has used."""
        assert self.process
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _ask(self, question: Any, limit: float) -> Any:
        assert self.process
        assert self.process.stdin
        assert self.process.stdout
        try:
            self.process.stdin.write((json.dumps(question) + "\n").encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        begun, before = time.monotonic(), self._busy_s()
        while not select.select([self.process.stdout], [], [], 0.5)[0]:
            # Of the processor, so that a busy machine makes no hang; one that waits is caught too.
            if self._busy_s() - before > limit or time.monotonic() - begun > 6 * limit:
                return None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None


def judged(name: str, count: int, seed: int, work: Path) -> Iterator[tuple[Mutant, str]]:
    """What came of some mutants of a format: `refused`, `same`, `undetectable`, or a fault."""
    sound = work / "sound" / "agent"
    ignored = shutil.ignore_patterns("golden.*", "nocompile")
    shutil.copytree(FORMATS[name].source, sound, ignore=ignored)
    reader = Reader(name, sound)
    canary = Path("CANARY")
    try:
        stream = mutants(name, random.Random(seed))
        for number in range(count):
            mutant = next(stream)
            folder = work / str(number) / "agent"
            shutil.copytree(sound, folder)
            for path in folder.rglob("*"):
                path.chmod(0o755)
            mutant.write(folder)
            verdict, events = reader(folder)
            if events or canary.exists():
                verdict = f"executed {events}"
            elif verdict.startswith("other"):
                facts = verdict == "other facts"
                free = mutant.may_change or (facts and mutant.kind == "flip")
                verdict = "undetectable" if free else f"silent: {verdict}"
            shutil.rmtree(work / str(number), ignore_errors=True)
            yield mutant, verdict
    finally:
        reader.close()


GOOD = frozenset({"refused", "same", "undetectable"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", default=list(FORMATS))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    bad = 0
    for name in options.formats:
        if not FORMATS[name].source.exists():
            print(f"{name}: {FORMATS[name].source} is not there")
            continue
        counts: collections.Counter[str] = collections.Counter()
        with tempfile.TemporaryDirectory() as work:
            for mutant, verdict in judged(name, options.count, options.seed, Path(work)):
                counts[verdict.partition(" ")[0]] += 1
                if verdict not in GOOD:
                    bad += 1
                    print(f"{name}: {mutant.kind}, {mutant.label}: {verdict}", flush=True)
        print(f"{name}: {dict(counts)}", flush=True)
    return bad > 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        sys.exit(main())
