"""Tests of reports look at figures."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _figures_are_drawn(figures: None) -> None:
    """Draw every figure."""
