"""What records say of agents, arms and environments: dictionaries with these keys or more.

They are checked when a header is read (`thinkslow.storage.typed`): pages and comparisons use them.
"""

from typing import Annotated, Any, NotRequired, TypeAlias, TypedDict


class _Environment(TypedDict):
    id: str


class _Agent(TypedDict):
    name: str
    training_steps: NotRequired[int | None]
    training_seed: NotRequired[int | None]
    preset: NotRequired[str | None]
    source: NotRequired[str | None]
    action: NotRequired[str]
    parameters: NotRequired[int]
    weights: NotRequired[str]


class _Arm(TypedDict):
    agent: str
    arm: str
    description: NotRequired[str]
    thinking: NotRequired[dict[str, Any] | None]
    gate: NotRequired[str | None]
    share: NotRequired[float | None]
    deadline_ms: NotRequired[float | None]


class _Curve(TypedDict):
    step: list[float]
    score: list[float | None]


class _Sitting(TypedDict):
    command: NotRequired[str]
    revision: NotRequired[str | None]
    machine: NotRequired[str]
    began: NotRequired[str]
    unrepeated: NotRequired[str]


EnvironmentFacts: TypeAlias = Annotated[dict[str, Any], _Environment]
"""Arguments of `envs.make`."""
AgentFacts: TypeAlias = Annotated[dict[str, Any], _Agent]
"""An agent's name, origin and size, and a hash of its weights."""
ArmFacts: TypeAlias = Annotated[dict[str, Any], _Arm]
"""An arm of an agent, and its settings."""
Curve: TypeAlias = Annotated[dict[str, list[Any]], _Curve]
"""A learning curve."""
Sitting: TypeAlias = Annotated[dict[str, Any], _Sitting]
"""A process that played: command, revision, machine, time."""
