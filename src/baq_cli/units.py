"""The two phases of a run, and the unit that each is counted in."""

from __future__ import annotations

from typing import Literal

Phase = Literal["offline", "online"]
UNITS: dict[Phase, str] = {"offline": "gradient_steps", "online": "env_steps"}
