"""`baq recipes`: the recipes that ship with the tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.cli.groups import WholeSummaries
from baq_cli.cli.say import say
from baq_cli.errors import UsageError, clipped, nearest
from baq_cli.surroundings import UNANSWERED, refused

app = typer.Typer(
    help="List, show, copy and validate recipes.",
    cls=WholeSummaries,
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[
    str,
    typer.Argument(help="A shipped recipe, or a YAML file.", autocompletion=completion.recipe),
]


@app.command("list")
def list_recipes(
    folder: Annotated[
        str | None,
        typer.Argument(
            help="Only those in a folder, with what is in them.",
            autocompletion=completion.recipe_folder,
        ),
    ] = None,
    json: opt.Json = False,
) -> None:
    """List the shipped recipes, by folder; of one folder, what each is of."""
    from baq_cli.cli.results import print_json, print_table
    from baq_cli.recipes.names import recipe_names
    from baq_cli.recipes.shipped import open_recipe

    names = _in_folder(recipe_names(), folder)
    if folder is None and not json:
        folders = dict.fromkeys(name.partition("/")[0] for name in names)
        print_table([_folder(name, _in_folder(names, name)) for name in folders])
        say("What each is of: baq recipes list FOLDER")
        return
    rows = []
    for name in names:
        layer = open_recipe(name)
        keys = ("algo", "dataset", "gradient_steps", "env_steps")
        rows.append({"recipe": name, **{key: layer.get(key) for key in keys}})
    if json:
        print_json(rows)
    else:
        print_table(rows)


def _in_folder(names: list[str], folder: str | None) -> list[str]:
    """Return the recipes of a folder; raises UsageError where there is none of that name."""
    if folder is None:
        return names
    found = [name for name in names if name.startswith(f"{folder.rstrip('/')}/")]
    if not found:
        folders = list(dict.fromkeys(name.partition("/")[0] for name in names))
        raise UsageError(f"no folder of recipes '{clipped(folder)}'; {nearest(folder, folders)}")
    return found


def _folder(name: str, recipes: list[str]) -> dict[str, object]:
    """Return a folder's row: its recipes by name, variants in braces behind what they share."""
    shown = [recipe.partition("/")[2] for recipe in recipes]
    return {"folder": name, "recipes": len(shown), "names": ", ".join(_folded(shown))}


def _folded(names: list[str]) -> list[str]:
    """Return names, those of tasks of one environment together: cube-double-play[-task1,3,4,5]."""
    stems: dict[str, list[str]] = {}
    for name in names:
        stem, _, task = name.partition("-task")
        stems.setdefault(stem, []).append(task)
    return [
        stem + f"[-task{','.join(filter(None, tasks))}]" * any(tasks)
        for stem, tasks in stems.items()
    ]


@app.command()
def show(name: Name) -> None:
    """Print a recipe."""
    say(_text_of(name), nl=False)


@app.command()
def copy(
    name: Name,
    to: Annotated[Path | None, typer.Argument(help="The file to write.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Copy a recipe to a file of your own."""
    from baq_cli.runs.files import disk_errors, replace_file

    text = _text_of(name)
    target = to or Path(name.replace("/", "-") + ".yaml")
    if target.exists() and not force:
        raise UsageError(f"{target} exists: choose another name, or overwrite it with --force")
    with disk_errors(f"write {target}"):
        replace_file(target, text.encode())
    say(f"{target}")


def _text_of(name: str) -> str:
    """Return a recipe's text; raises UsageError when it isn't one, DataError as `read_layer`."""
    from baq_cli.recipes.shipped import find_recipe
    from baq_cli.untrusted import MOST_YAML_CHARACTERS, read_text

    try:
        return read_text(find_recipe(name), 4 * MOST_YAML_CHARACTERS, follow=True)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in UNANSWERED:
            raise refused(f"read the recipe {name}", error) from error
        raise UsageError(f"cannot read the recipe {name}: {error}") from error


@app.command()
def validate(
    file: Annotated[
        str,
        typer.Argument(help="A YAML file, or a shipped recipe.", autocompletion=completion.recipe),
    ],
    overrides: opt.Overrides = None,
) -> None:
    """Check a recipe, and print it resolved for each method that it has a section for."""
    from baq_cli.agents.registry import METHODS
    from baq_cli.recipes.load import to_yaml
    from baq_cli.recipes.shipped import open_recipe

    layer = open_recipe(file)
    named = [layer["algo"]] if "algo" in layer else [name for name in METHODS if name in layer]
    for algo in named or list(METHODS):
        resolved = opt.build_recipe([], file, {"algo": algo}, overrides)
        say(to_yaml(resolved, f"{file}: valid for {algo}"), nl=False)
