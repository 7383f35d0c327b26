"""Where files of the repository lie."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS, TESTS = REPOSITORY / "docs", REPOSITORY / "tests"
RECORDED = TESTS / "recorded"
"""Numbers that were recorded, and that are compared with what is computed now."""
