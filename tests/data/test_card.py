"""The numbers of a dataset's card, each computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from baq_cli.data.card import card
from baq_cli.data.episodes import Episodes
from baq_cli.envs.spaces import Spaces

NEAR = pytest.approx
X = np.repeat([-1.0, 0.0, 1.0], 3)
Z = np.tile([-1.0, 0.0, 1.0], 3)
"""Nine observations in which X and Z don't go together at all."""


def by_hand(observations: list[np.ndarray[tuple[int], np.dtype[np.float64]]]) -> Episodes:
    """Return episodes of 2, 1 and 3 steps; the second one terminates."""
    last = np.isin(np.arange(6), (1, 2, 5))
    terminated = np.arange(6) == 2
    return Episodes(
        "test/hand-v0",
        Spaces(len(observations), (-2.0, 0.0), (4.0, 1.0)),
        np.stack(observations, 1).astype(np.float32),
        np.array([[-1, 0], [0, 0.5], [1, 0], [0, -0.5], [0.5, 1], [-1, 1]], dtype=np.float32),
        np.array([1, 0, -2, 0.25, 0.25, 0], dtype=np.float32),
        terminated,
        last & ~terminated,
        np.array([2, 1, 3]),
    )


def test_a_card_says_what_is_computed_by_hand() -> None:
    """Returns are 1, −2 and ½; of the actions' bounds, the first has width 6, the other 1."""
    found = card(by_hand([X, 2 * X + 5, Z, 0 * X + 7]), {"ref_min_score": -1, "ref_max_score": 1.0})
    assert (found["episodes"], found["env_steps"]) == (3, 6)
    assert found["return_mean"] == NEAR(-0.5 / 3)
    assert found["return_std"] == NEAR(np.sqrt((1 + 4 + 0.25) / 3 - (0.5 / 3) ** 2))
    quarters = ("0%", "25%", "50%", "75%", "100%")
    assert found["return_quantiles"] == NEAR(
        dict(zip(quarters, (-2, -0.75, 0.5, 0.75, 1), strict=True))
    )
    assert found["length_quantiles"] == NEAR(dict(zip(quarters, (1, 1.5, 2, 2.5, 3), strict=True)))
    assert found["reward_range"] == [-2.0, 1.0]
    assert found["reward_density"] == NEAR(4 / 6)
    assert found["action_coverage"] == NEAR(4 / 20)  # of each, four values in bins of their own
    assert (found["obs_min"], found["obs_max"]) == ([-1, 3, -1, 7], [1, 7, 1, 7])
    assert (found["action_min"], found["action_max"]) == ([-2, 0.25], [4, 1])
    assert found["actions_on_bounds"] == NEAR(4 / 6)
    assert found["ends"] == {"terminated": 1, "truncated": 2, "both": 0, "neither": 0}
    assert found["scores"][0]["score"] == NEAR(100 * (1 - 0.5 / 3) / 2)


def test_effective_dimensions_count_what_varies_by_itself() -> None:
    """Of eigenvalues 2, 1 and 0 of the correlations they are (2 + 1)² / (4 + 1)."""
    for observations, dimensions in (
        ([X, 2 * X + 5, Z, 0 * X + 7], 1.8),
        ([X, Z], 2.0),
        ([X, -3 * X], 1.0),
        ([X, 0 * X], 1.0),
        ([0 * X], 0.0),
    ):
        assert card(by_hand(observations), {})["obs_effective_dims"] == NEAR(dimensions)
