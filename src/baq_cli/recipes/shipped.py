"""Finding the recipes that ship with the tool."""

from __future__ import annotations

from pathlib import Path

from baq_cli.errors import EnvironmentMismatch, UsageError, clipped, nearest
from baq_cli.recipes.load import Layer, read_layer
from baq_cli.recipes.names import recipe_folder, recipe_names
from baq_cli.untrusted import check_plain_arguments, trusted


def find_recipe(name: str) -> Path:
    """Return the file of a shipped recipe or the file that `name` is.

    Raises UsageError when it is neither, naming the nearest recipe.
    """
    if name in recipe_names():
        return recipe_folder() / f"{name}.yaml"
    path = Path(name)
    if path.is_file():
        return path
    raise UsageError(
        f"no recipe '{name}': neither a file nor a shipped recipe; {nearest(name, recipe_names())}"
    )


def open_recipe(name: str) -> Layer:
    """Read a shipped recipe or a recipe file.

    Raises EnvironmentMismatch where its environment's arguments name files, unless that is trusted.
    """
    layer = read_layer(find_recipe(name))
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
