"""A recipe's section `safety`: what limits actions and observations, whoever acts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from baq_cli.recipes.closed import MOST_COUNT, MOST_WIDTH, Closed, Positive


def _each(value: Any) -> Any:
    """Return one number as a list of it, which stands for every action."""
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value


_EachAction = Field(min_length=1, max_length=MOST_WIDTH)
Changes = Annotated[tuple[Positive, ...], BeforeValidator(_each), _EachAction]
Action = Annotated[tuple[float, ...], BeforeValidator(_each), _EachAction]


class EnvelopeConfig(Closed):
    """How far observations may lie from those of the data, and what follows where they don't."""

    sigmas: Positive = Field(
        description="standard deviations of the data that a dimension may lie from their mean"
    )
    then: Literal["stop", "hold", "hand_over"] = Field(
        "stop", description="end the episode and the run; hold; hold until somebody takes over"
    )
    after_steps: int = Field(
        1, ge=1, le=MOST_COUNT, description="observations in a row that lie outside"
    )


class WatchdogConfig(Closed):
    """How late an action may come, and what follows when it comes later."""

    max_late_seconds: Positive = Field(
        description="from the end of a step, or from when an action is due with control.hz"
    )
    then: Literal["stop", "hold"] = Field(
        "hold", description="hold instead of what came late; or that, then end episode and run"
    )


class SafetyConfig(Closed):
    """Limits that hold whoever acts. Actions are in the units of the action space."""

    max_action_change: Changes | None = Field(
        None, description="of each action, or of all, from one step to the next"
    )
    rest_action: Action | None = Field(
        None, description="what an episode's first action changes from; null: from nothing"
    )
    hold_action: Action | None = Field(
        None, description="what holding does; null: what was done last, at first rest_action"
    )
    observation_envelope: EnvelopeConfig | None = None
    watchdog: WatchdogConfig | None = None

    @model_validator(mode="after")
    def _holds_something(self) -> SafetyConfig:
        envelope = self.observation_envelope
        if self.max_action_change is None and envelope is None and self.watchdog is None:
            raise ValueError("a limit is max_action_change, observation_envelope or watchdog")
        holds = self.watchdog is not None or (envelope is not None and envelope.then != "stop")
        if holds and self.hold_action is None and self.rest_action is None:
            raise ValueError(
                "what holding does before anything was done in an episode isn't known: give "
                "hold_action, or rest_action"
            )
        return self
