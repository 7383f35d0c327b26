"""Actions beyond their bounds: what a policy drew, before its environment clipped it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from baq_cli.data.checks import OUTSIDE
from baq_cli.data.recording import Recording
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import MOST_LISTED, DataError

Array = npt.NDArray[Any]
CLIPPED = "clipped_actions"
"""The entry of a dataset's metadata."""


class Clipped(BaseModel):
    """How many of `of` actions lay beyond their bounds, by more than rounding; each dimension's
    share of them all."""

    model_config = ConfigDict(strict=True, frozen=True)

    env_steps: int
    of: int
    share_by_dimension: list[float]

    @property
    def share(self) -> float:
        return self.env_steps / max(self.of, 1)

    @property
    def facts(self) -> dict[str, Any]:
        return {**self.model_dump(), "share": self.share}

    @property
    def text(self) -> str:
        """Say it in a line."""
        beyond = {k: part for k, part in enumerate(self.share_by_dimension) if part}
        parts = [f"{k}: {part:.1%}" for k, part in list(beyond.items())[:MOST_LISTED]]
        by = f"; by dimension {', '.join(parts)}" if parts else ""
        return f"{self.env_steps:,} of {self.of:,} ({self.share:.1%}{by})"


def clipped_in(metadata: dict[str, Any]) -> Clipped | None:
    """Return what a dataset's metadata say was clipped; None where they don't, or say it oddly."""
    try:
        return Clipped.model_validate(metadata.get(CLIPPED))
    except ValidationError:
        return None


def within_bounds(recording: Recording, clip: bool) -> tuple[Recording, Clipped | None]:
    """Return a recording whose actions lie within their bounds: clipped, where that is asked for.

    What isn't finite is left for the checks to find.
    Raises DataError where actions lie beyond them, and nothing asks for it.
    """
    spaces = Spaces.of(recording.observation_space, recording.action_space)
    low, high = np.asarray(spaces.action_low), np.asarray(spaces.action_high)
    actions = recording.actions.astype(np.float64)
    with np.errstate(invalid="ignore"):
        beyond = np.fmax(low - actions, actions - high) / ((high - low) / 2)
    beyond[~np.isfinite(actions)] = 0
    outside = beyond > OUTSIDE
    found = Clipped(
        env_steps=int(outside.any(1).sum()),
        of=len(actions),
        share_by_dimension=outside.mean(0).tolist(),
    )
    if clip:
        return replace(recording, actions=_clipped(recording.actions, low, high)), found
    if found.env_steps:
        raise DataError(
            f"{found.text} of the actions lie outside the action space, by up to "
            f"{float(beyond.max()):.3g} of its half width. --clip-actions (from Python "
            "clip_actions=True) moves them onto their bounds, as environments do, and keeps that "
            "share with the dataset; or give the right bounds."
        )
    return recording, None


def _clipped(actions: Array, low: Array, high: Array) -> Array:
    """Move finite actions onto their bounds, in their own type, never past them by rounding."""
    dtype = actions.dtype if actions.dtype.kind == "f" else np.dtype(np.float64)
    lowest, highest = low.astype(dtype), high.astype(dtype)
    lowest = np.where(lowest < low, np.nextafter(lowest, dtype.type(np.inf)), lowest)
    highest = np.where(highest > high, np.nextafter(highest, dtype.type(-np.inf)), highest)
    given = actions.astype(dtype)
    return np.where(np.isfinite(given), np.clip(given, lowest, highest), given).astype(dtype)
