"""The two phases of a run, the unit each is counted in; amounts, scores and durations in words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

Phase = Literal["offline", "online"]
UNITS: dict[Phase, str] = {"offline": "gradient_steps", "online": "env_steps"}


def amount(number: int, thing: str) -> str:
    """Return `1 episode` or `1,200 episodes`: a number of things, of which one has no s."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def scores(*values: float | None, grouped: bool = False) -> list[str]:
    """Return scores beside each other: with one decimal, below 1 with more; empty for none.

    With `grouped`, thousands are set apart.
    """
    digits, comma = tenths(values), "," if grouped else ""
    return ["" if value is None else f"{value:{comma}.{digits}f}" for value in values]


def magnitude(values: Iterable[float]) -> int:
    """Return the power of ten below the largest of the values, whatever its sign; 0 for none."""
    largest = max(map(abs, values), default=0.0)
    return math.floor(math.log10(largest)) if largest and math.isfinite(largest) else 0


def decimals(values: Iterable[float]) -> int:
    """Return with how many decimals numbers of these sizes are printed, the same for all."""
    exponent = magnitude(values)
    return 0 if exponent >= 3 else 1 if exponent >= 1 else min(8, 2 - exponent)


def tenths(values: Iterable[float | None]) -> int:
    """Return one decimal, or, where all numbers are below 1 as success rates are, more."""
    known = [value for value in values if value is not None]
    return 1 if magnitude(known) >= 0 else decimals(known)


def in_words(seconds: float) -> str:
    """Return a duration as people say it."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes >= 10 else f"{minutes} min {left} s"
