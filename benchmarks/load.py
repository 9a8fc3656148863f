"""How long an agent takes to load, and how much memory.

    uv run python benchmarks/load.py --preset size200m

**Claim.** An agent of size200m loads in under 3 seconds on a CPU machine from a warm disk, and
no two copies of its weights are ever in memory.

**Method.** A freshly initialised agent of the preset is written to a temporary folder. A process
of its own loads it as many times as asked, and each time waits for the arrays: seconds from the
path to the model, checksum included, imports apart. A second one loads it once: the largest
resident memory of that process, less what it had before, over the bytes of the weights.

size200m (633 MiB): 0.47 s (median of 5), 0.99 times the weights. Two cores of an AMD EPYC,
otherwise idle. Revision 9005fa1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from thinkslow.evaluation.protocol import machine
from thinkslow.saved.provenance import revision

LOAD = """
import json, resource, sys, time
import jax
from thinkslow.saved import folder as checkpoint
jax.block_until_ready(jax.numpy.zeros(1))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, seconds = peak(), []
for _ in range(int(sys.argv[2])):
    begun = time.perf_counter()
    saved = checkpoint.load(sys.argv[1])
    jax.block_until_ready(jax.tree.leaves(saved.model))
    seconds.append(time.perf_counter() - begun)
print(json.dumps({"seconds": seconds, "bytes": peak() - before}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="size200m")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        agent = Path(folder) / "agent"
        size = write(agent, given.preset)
        load(agent, 1)  # into the page cache
        seconds = load(agent, given.repeats)["seconds"]
        peak = load(agent, 1)["bytes"]
    result = {
        "preset": given.preset,
        "weights_bytes": size,
        "seconds_median": float(np.median(seconds)),
        "seconds_all": seconds,
        "peak_bytes": peak,
        "peak_over_weights": peak / size,
        "machine": machine(),
        "revision": revision(),
    }
    if given.json:
        print(json.dumps(result))
        return
    median, ratio = result["seconds_median"], result["peak_over_weights"]
    print(f"{given.preset}: {median:.2f} s (median of {given.repeats})")
    print(f"memory: {ratio:.2f} times the weights ({size / 2**20:.0f} MiB)")
    print(f"{result['machine']}, revision {result['revision']}")


def write(folder: Path, preset: str) -> int:
    """Write a random agent in a process of its own; the bytes of its weights."""
    code = (
        "import sys, jax.random as jr\n"
        "from pathlib import Path\n"
        "from thinkslow.dreamer import checkpoint\n"
        "from thinkslow.dreamer.config import model_preset\n"
        "from thinkslow.dreamer.model import Dreamer\n"
        "from thinkslow.spaces import Space\n"
        "spaces = {'image': Space((64, 64, 3), 'uint8')}, {'action': Space((), 'int32', 17)}\n"
        "model = Dreamer(*spaces, model_preset(sys.argv[2]), key=jr.key(0))\n"
        "environment = {'id': None, 'size': 64, 'repeat': 1}\n"
        "training = {'steps': 0, 'seed': 0, 'preset': sys.argv[2]}\n"
        "facts = {'environment': environment, 'training': training}\n"
        "checkpoint.save(Path(sys.argv[1]), model, name='random', **facts)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), preset], check=True)
    return (folder / "weights.safetensors").stat().st_size


def load(folder: Path, repeats: int) -> dict:
    command = [sys.executable, "-c", LOAD, str(folder), str(repeats)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
