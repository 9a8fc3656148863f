"""Start environments before JAX is imported, which takes about as long as a simulator to start."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from thinkslow.zoo import located


@contextlib.contextmanager
def environments(
    agents: Sequence[Path],
    described: Callable[[Sequence[Any]], Mapping[str, Any]],
    count: int,
) -> Iterator[None]:
    """Start the environments that the body will need, if the agents' manifests say which.

    Nothing starts for agents of other projects, nor if anything is wrong: the body then gives the
    error.

    Args:
        agents: paths of agents, or names of bundled ones.
        described: the environment of agents of which only the facts are known.
        count: how many environments.
    """
    from thinkslow.envs.crew import started_early
    from thinkslow.envs.descriptions import arguments, described_environment
    from thinkslow.saved.environment import facts
    from thinkslow.storage.store import is_own

    making = None
    with contextlib.suppress(ValueError, OSError):
        paths = [located(one) for one in agents]
        if all(map(is_own, paths)):
            making = arguments(described_environment(described([facts(path) for path in paths])))
    with started_early(making, count) if making else contextlib.nullcontext():
        yield
