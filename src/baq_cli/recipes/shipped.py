"""Finding the recipes that ship with the tool."""

from __future__ import annotations

from pathlib import Path

from baq_cli.errors import EnvironmentMismatch, UsageError, clipped, nearest
from baq_cli.recipes.load import Layer, merged, outdated, read_layer
from baq_cli.recipes.names import recipe_folder, recipe_names
from baq_cli.untrusted import check_plain_arguments, trusted

EXTENDS = "extends"
SUFFIXES = (".yaml", ".yml")
"""What the name of a recipe's file ends in; that of a shipped one has none."""
MOST_FAMILIES = 4
"""How many recipes one stands on, one upon the other."""


def find_recipe(name: str) -> Path:
    """Return the file of a shipped recipe or the file that `name` is.

    Raises UsageError when it is neither, naming the nearest recipes.
    """
    if name in recipe_names():
        return recipe_folder() / f"{name}.yaml"
    path = Path(name)
    if path.is_file():
        return path
    what = "no such file" if path.suffix in SUFFIXES else "neither a file nor a shipped recipe"
    raise UsageError(f"no recipe '{clipped(name)}': {what}; {_near(name)}")


def _near(name: str) -> str:
    """Return the shipped recipes that a name may mean, and where all of them are listed."""
    asked, where = name.removesuffix(Path(name).suffix), "'baq recipes list' shows those that ship"
    return nearest(asked, recipe_names(), most=3, elsewhere=where)


def open_recipe(name: str) -> Layer:
    """Read a shipped recipe or a recipe file, with the shipped recipe that it `extends`.

    Keys of the file win over those of the one that it extends, key by key; an environment that it
    names it names whole.
    Raises UsageError where that isn't shipped, and EnvironmentMismatch where its environment's
    arguments name files, unless that is trusted.
    """
    layer = _whole(read_layer(find_recipe(name)), name, MOST_FAMILIES)
    args = layer.get("env_args")
    for key, value in args.items() if isinstance(args, dict) and not trusted() else ():
        try:
            check_plain_arguments({key: value})
        except ValueError as error:
            raise EnvironmentMismatch(
                f"the recipe {name} has the environment's argument {clipped(key)}="
                f"{clipped(value)}, which is refused: {error}. If you know it and want that, take "
                f"it out of the recipe and say --env-arg {clipped(key)}=VALUE, or add --trust-env "
                "to the command."
            ) from error
    return layer


def _whole(layer: Layer, name: str, most: int) -> Layer:
    """Return a layer over those of the recipes that it extends."""
    own = dict(layer)
    family = own.pop(EXTENDS, None)
    if family is None:
        return own
    if family not in recipe_names():
        raise UsageError(
            f"the recipe {name} extends '{clipped(family)}', which is no shipped recipe; "
            f"{_near(str(family))}"
        )
    if not most:
        raise UsageError(f"the recipe {name} extends itself, or too many recipes in turn")
    theirs = _whole(read_layer(recipe_folder() / f"{family}.yaml"), family, most - 1)
    return merged({key: theirs[key] for key in theirs if key not in outdated(own)}, own)
