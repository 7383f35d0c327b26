"""The schema of who else may act online, and of the keys by which a person does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from baq_cli.recipes.closed import MOST_COUNT, Closed
from baq_cli.untrusted import MOST_NAME

Kind = Literal["keyboard", "gamepad", "policy", "module"]
PERSONS: tuple[Kind, ...] = ("keyboard", "gamepad")
WAYS = "keyboard, gamepad, policy:PATH or module:Class"
_CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
PERSON_HZ = 20
"""A simulator steps faster than a person can steer it."""
NAMED_KEYS = (
    *("space", "enter", "tab", "left", "right", "up", "down", "home", "end", "pageup", "pagedown"),
    *("insert", "delete", *(f"f{number}" for number in range(1, 13))),
)
"""Keys that are called by a name; the others are the characters that they type."""
COMMANDS = ("take_over", "hand_back", "success", "failure", "end", "pause", "stop")
PAIRS = (
    *(("left", "right"), ("down", "up"), ("a", "d"), ("s", "w"), ("j", "l"), ("k", "i")),
    *((",", "."), ("[", "]")),
)
"""By default: lowers and raises each action dimension, in order."""


def _key(name: str) -> str:
    if name not in NAMED_KEYS and not (len(name) == 1 and name.isprintable() and name != " "):
        raise ValueError(f"a key is one character, or one of {', '.join(NAMED_KEYS)}")
    return name


Key = Annotated[str, Field(max_length=20), AfterValidator(_key)]


class KeysConfig(Closed):
    """What each key of a keyboard does while somebody may take over."""

    take_over: Key = Field("space", description="takes over; hands back where it has")
    hand_back: Key = Field("h", description="hands back to the policy")
    success: Key = Field("y", description="marks the episode a success, and ends it")
    failure: Key = Field("n", description="marks the episode a failure, and ends it")
    end: Key = Field("e", description="cuts the episode, without a mark")
    pause: Key = Field("p", description="nothing is stepped until it is typed again")
    stop: Key = Field("q", description="saves, and ends the command as Ctrl-C does")
    actions: tuple[tuple[Key, Key], ...] | None = Field(
        None,
        max_length=1000,
        description="pairs that lower and raise an action dimension each; null: arrows, letters",
    )
    strength: float = Field(
        0.5, gt=0, le=1, description="of an action key: share of the way to the bound"
    )
    hold_seconds: float = Field(
        0.3, ge=0, le=60, description="how long a typed key counts as held; one step at least"
    )

    @model_validator(mode="after")
    def _each_key_does_one_thing(self) -> KeysConfig:
        meant = [getattr(self, name) for name in COMMANDS]
        meant += [key for pair in self.pairs for key in pair]
        twice = sorted({key for key in meant if meant.count(key) > 1})
        if twice:
            raise ValueError(f"'{twice[0]}' is the key of two things")
        return self

    @property
    def commands(self) -> dict[str, str]:
        """What each key that is no action's does, by the names of the fields."""
        return {getattr(self, name): name for name in COMMANDS}

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The keys that lower and raise each action dimension, in order."""
        if self.actions is not None:
            return self.actions
        return tuple(pair for pair in PAIRS if not {*pair} & {*self.commands})


class InterventionConfig(Closed):
    """Who else may act online, in the policy's place, and when."""

    by: str = Field(max_length=MOST_NAME, description=WAYS)
    episode_share: float = Field(
        1.0, ge=0, le=1, description="a policy: share of episodes in which it may take over"
    )
    step_probability: float = Field(
        0.02, ge=0, le=1, description="a policy: that a take-over begins, at each step of those"
    )
    steps: int | None = Field(
        25, ge=1, le=MOST_COUNT, description="of a policy's take-over; null: to the episode's end"
    )
    keys: KeysConfig | None = Field(None, description="a keyboard's; null: as they are")
    hz: float | None = Field(
        None, gt=0, description=f"most steps a second while a person acts; null: {PERSON_HZ}"
    )
    success_reward: float | None = Field(
        None, description="added to the last reward of an episode that is marked a success"
    )

    @field_validator("by")
    @classmethod
    def _is_somebody(cls, by: str) -> str:
        kind, _, path = by.partition(":")
        known = by in PERSONS or (kind == "policy" and path)
        if not known and (kind in (*PERSONS, "policy") or not _CLASS.fullmatch(by)):
            raise ValueError(f"expected {WAYS}")
        return by

    @model_validator(mode="after")
    def _each_key_has_an_effect(self) -> InterventionConfig:
        of_policies = ("episode_share", "step_probability", "steps")
        defaults = {name: type(self).model_fields[name].default for name in of_policies}
        idle: dict[str, Any] = {n: d for n, d in defaults.items() if getattr(self, n) != d}
        if self.kind != "policy" and idle:
            raise ValueError(f"'{min(idle)}' is the rule of a policy:PATH; '{self.by}' decides")
        if self.kind != "keyboard" and self.keys is not None:
            raise ValueError(f"'keys' are a keyboard's, and '{self.by}' has none")
        if not self.is_person and self.hz is not None:
            raise ValueError(f"'hz' slows down for a person, and '{self.by}' is none")
        if self.kind == "policy" and self.success_reward is not None:
            raise ValueError("'success_reward' is for who marks episodes; a policy:PATH marks none")
        return self

    @property
    def kind(self) -> Kind:
        """Which of the four ways it is."""
        if self.by in ("keyboard", "gamepad"):
            return "keyboard" if self.by == "keyboard" else "gamepad"
        return "policy" if self.by.startswith("policy:") else "module"

    @property
    def is_person(self) -> bool:
        """Whether it is a person at a device."""
        return self.kind in PERSONS

    @property
    def policy_path(self) -> Path:
        """Where the policy lies that takes over."""
        return Path(self.by.partition(":")[2])
