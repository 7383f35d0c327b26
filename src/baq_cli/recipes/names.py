"""The recipes that ship with the tool, by name. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def recipe_folder() -> Path:
    """Return where recipes lie: inside an installed wheel, or at the root of a checkout."""
    installed = _HERE / "shipped"
    return installed if installed.is_dir() else _HERE.parents[2] / "recipes"


def recipe_names() -> list[str]:
    """Return the shipped recipes as `task/method`, sorted."""
    folder = recipe_folder()
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
    )
