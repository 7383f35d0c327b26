"""Finding the recipes that ship with the tool."""

from __future__ import annotations

from pathlib import Path

from baq_cli.errors import UsageError, nearest
from baq_cli.recipes.load import Layer, read_layer

_HERE = Path(__file__).parent


def _folder() -> Path:
    """Return where recipes lie: inside an installed wheel, or at the root of a checkout."""
    installed = _HERE / "shipped"
    return installed if installed.is_dir() else _HERE.parents[2] / "recipes"


def recipe_names() -> list[str]:
    """Return the shipped recipes as `task/method`, sorted."""
    folder = _folder()
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
    )


def find_recipe(name: str) -> Path:
    """Return the file of a shipped recipe or the file that `name` is.

    Raises UsageError when it is neither, naming the nearest recipe.
    """
    if name in recipe_names():
        return _folder() / f"{name}.yaml"
    path = Path(name)
    if path.is_file():
        return path
    raise UsageError(
        f"no recipe '{name}': neither a file nor a shipped recipe; {nearest(name, recipe_names())}"
    )


def open_recipe(name: str) -> Layer:
    """Read a shipped recipe or a recipe file."""
    return read_layer(find_recipe(name))
