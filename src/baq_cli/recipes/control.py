"""The schema of acting on the wall clock."""

from __future__ import annotations

from pydantic import Field

from baq_cli.recipes.closed import MOST_COUNT, Closed


class ControlConfig(Closed):
    """At which rate a process that only acts steps the environment, while another learns."""

    hz: float = Field(gt=0, le=100_000, description="actions a second, each at its time")
    publish_every_updates: int = Field(
        10, ge=1, le=MOST_COUNT, description="updates between two policies that the process gets"
    )
    tolerance_ms: float = Field(
        1.0, gt=0, le=1e6, description="how late an action may go out before its deadline is missed"
    )
