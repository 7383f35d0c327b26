"""Whether frequencies fit probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_fair(counts: np.ndarray[Any, Any], shares: np.ndarray[Any, Any]) -> bool:
    """Tell whether counts fit shares: chi-square within five standard deviations of its mean."""
    expected = counts.sum() * shares / shares.sum()
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    freedom = len(counts) - 1
    return chi_square < freedom + 5 * np.sqrt(2 * freedom)
