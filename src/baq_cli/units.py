"""The two phases of a run, the unit that each is counted in, and durations in words."""

from __future__ import annotations

from typing import Literal

Phase = Literal["offline", "online"]
UNITS: dict[Phase, str] = {"offline": "gradient_steps", "online": "env_steps"}


def in_words(seconds: float) -> str:
    """Return a duration as people say it."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes >= 10 else f"{minutes} min {left} s"
