"""The two phases of a run, the unit that each is counted in; amounts and durations in words."""

from __future__ import annotations

from typing import Literal

Phase = Literal["offline", "online"]
UNITS: dict[Phase, str] = {"offline": "gradient_steps", "online": "env_steps"}


def amount(number: int, thing: str) -> str:
    """Return `1 episode` or `1,200 episodes`: a number of things, of which one has no s."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def in_words(seconds: float) -> str:
    """Return a duration as people say it."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes >= 10 else f"{minutes} min {left} s"
