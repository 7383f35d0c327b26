"""What environments did in a step, beside what they were asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.envs.faults import EXECUTED, HAND_OVER
from baq_cli.envs.spaces import Spaces

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class StepRecord:
    """What K environments did in a step, beside the actions `[K, action_dim]` asked for.

    `asked` are those in [−1, 1], `asked_in_env` the same in the environment's units and type.
    `executed` is what was done in their place, where a limit or an
    environment decided so, `[K, action_dim]` float64 in its units, the other rows NaN; None where
    all did what they were asked to. `did_other [K]` says which environments said that they did
    other than they were told, `limited [K]` which were told other than was asked, by a limit.
    `cut [K]` says whose episode the step truncated because a limit ended it, and `limits_acted [K]`
    uint8 which limits did anything in it: `Limits.bits`, and `ENDED`.
    """

    spaces: Spaces
    asked: Array
    asked_in_env: Array
    executed: Array | None
    did_other: Array
    limited: Array
    cut: Array
    limits_acted: Array

    @classmethod
    def none(cls, spaces: Spaces, count: int) -> StepRecord:
        """Return the record of no step."""
        idle = np.zeros((count, spaces.action_dim), dtype=np.float32)
        wanted = spaces.to_env(idle)
        return cls.of(spaces, idle, wanted, wanted, wanted.astype(np.float64))

    @classmethod
    def of(
        cls, spaces: Spaces, asked: Array, asked_in_env: Array, begun: Array, done: Array
    ) -> StepRecord:
        """Return the record of a step that no limit took part in but by what was `begun`.

        `begun [K, action_dim]` is what the environments were told, in their units and type, and
        `done` what they did, float64.
        """
        other = (done != asked_in_env).any(axis=1)
        executed = np.where(other[:, None], done, np.nan) if other.any() else None
        return cls(
            *(spaces, asked, asked_in_env, executed),
            did_other=(done != begun).any(axis=1),
            limited=(begun != asked_in_env).any(axis=1),
            cut=np.zeros(len(done), dtype=np.bool_),
            limits_acted=np.zeros(len(done), dtype=np.uint8),
        )

    @property
    def action(self) -> Array:
        """What was done, in [−1, 1]: what was asked for, unless it was other."""
        if self.executed is None:
            return self.asked
        scaled = np.clip(self.spaces.from_env(self.executed), -1.0, 1.0)
        return np.where(_is_told(self.executed), scaled, self.asked)

    @property
    def action_in_env(self) -> Array:
        """The same in the environment's units and type."""
        if self.executed is None:
            return self.asked_in_env
        return instead(self.asked_in_env, self.executed)

    def executed_by(self, number: int) -> Array | None:
        """Return that row of `executed`, where there is an action in it."""
        if self.executed is None or not _is_told(self.executed)[number]:
            return None
        return np.asarray(self.executed[number])


def instead(action: Array, executed: Array) -> Array:
    """Return `action [K, action_dim]` with the rows of `executed` in its place that aren't NaN."""
    return np.where(_is_told(executed), executed, action).astype(action.dtype)


def done_by(begun: Array, infos: Mapping[str, Any]) -> Array:
    """Return what environments did by what they said of a step, `[K, action_dim]` float64.

    Saying that it was what they were told, `begun`, is saying nothing.
    """
    done = begun.astype(np.float64)
    if EXECUTED not in infos:
        return done
    found = np.asarray(infos[EXECUTED], dtype=np.float64)
    return np.where(infos[f"_{EXECUTED}"][:, None], found, done)


def asked_by(infos: Mapping[str, Any], count: int) -> list[str | None]:
    """Return why each environment asks for somebody by what it said; None where it doesn't."""
    if HAND_OVER not in infos:
        return [None] * count
    said = zip(infos[HAND_OVER], infos[f"_{HAND_OVER}"], strict=True)
    return [str(reason) if is_said else None for reason, is_said in said]


def _is_told(executed: Array) -> Array:
    """Return in which rows there is an action, `[K, 1]`."""
    return ~np.isnan(executed[:, :1])
