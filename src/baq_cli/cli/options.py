"""Options that several commands share, and how they become a recipe."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from baq_cli.cli import completion
from baq_cli.cli.say import say
from baq_cli.errors import UsageError, clipped, listed
from baq_cli.surroundings import in_shell

if TYPE_CHECKING:
    from baq_cli.envs.ref import EnvChoice
    from baq_cli.recipes.load import Layer
    from baq_cli.recipes.schema import Recipe

MOST_STEPS, MOST_EPISODES = 10**12, 100_000
"""What recipes take of steps, and of episodes an evaluation; their schema is slow to load."""

Algo = Annotated[
    str | None,
    typer.Option(
        help="Method: baq, awac, iql, …; 'baq methods' lists them.",
        autocompletion=completion.method,
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="A shipped recipe ('baq recipes list') or a YAML file.",
        autocompletion=completion.recipe,
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(help="How many seeds (3 means 0,1,2), or which (4,7; 10..14; one: 4,)."),
]
EnvArg = Annotated[
    list[str] | None,
    typer.Option(help="An argument of the environment, KEY=VALUE. Repeatable.", metavar="…"),
]
MaxEpisodeSteps = Annotated[
    int | None,
    typer.Option(
        help="Steps after which an episode is cut; default: its own.", min=1, max=MOST_STEPS
    ),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
NoCapture = Annotated[
    bool,
    typer.Option("--no-capture", help="Update eagerly: no graphs (CUDA), no records (CPU)."),
]
Track = Annotated[
    str | None,
    typer.Option(help="Log to tensorboard, wandb or mlflow too; several, separated by commas."),
]
Curves = Annotated[
    list[str] | None,
    typer.Option(
        help="A CSV file of curves from elsewhere, or corl: those that CORL published of AntMaze. "
        "Repeatable.",
        metavar="FILE|corl",
        autocompletion=completion.curves,
    ),
]
GradientSteps = Annotated[int | None, typer.Option(help="Offline gradient steps a seed.", min=1)]
EnvSteps = Annotated[int | None, typer.Option(help="Online environment steps a seed.", min=1)]
DatasetsEnv = Annotated[
    str | None, typer.Option("--env", help="Gymnasium id; default: the dataset's environment.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Cells run at once; default: one a CPU that is usable. 1: in this process.", min=1
    ),
]
LauncherName = Annotated[str, typer.Option("--launcher", help="local, ray or slurm.")]
Address = Annotated[
    str | None, typer.Option(help="Ray: the cluster's address, or auto; none: one of our own.")
]
Cpus = Annotated[int | None, typer.Option(help="Ray, Slurm: CPUs of a cell.", min=1)]
Gpus = Annotated[float | None, typer.Option(help="Ray, Slurm: GPUs of a cell.", min=0)]
Slurm = Annotated[
    list[str] | None,
    typer.Option(help="Slurm: an option of sbatch, KEY=VALUE. Repeatable.", metavar="…"),
]
Out = Annotated[Path, typer.Option(help="The run's folder; it must not hold a run yet.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")]
Json = Annotated[bool, typer.Option("--json", help="Print results as JSON.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY.SUB=VALUE]...",
        help="Override anything a recipe says.",
        autocompletion=completion.override,
    ),
]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes each option of its groups of options by its own name.

    A group is a parameter whose type is a dataclass; its fields are options.
    """
    # Not get_type_hints: on Python 3.10 that hides what a default of None is annotated with.
    own = inspect.signature(command, eval_str=True).parameters
    groups = {
        name: of.annotation
        for name, of in own.items()
        if isinstance(of.annotation, type) and is_dataclass(of.annotation)
    }
    parameters = []
    for parameter in own.values():
        group = groups.get(parameter.name)
        of_it = [parameter]
        if group is not None:
            types = get_type_hints(group, include_extras=True)
            of_it = [
                parameter.replace(
                    name=field.name, default=field.default, annotation=types[field.name]
                )
                for field in fields(group)
            ]
        parameters += of_it

    @functools.wraps(command)
    def taken_apart(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    taken_apart.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    taken_apart.__annotations__ = {one.name: one.annotation for one in parameters}
    return taken_apart


def parse_seeds(text: str, flag: str = "--seeds") -> list[int]:
    """Read `3` as seeds 0, 1, 2, `4,7` as those, and `4..7` as 4, 5, 6, 7.

    Raises UsageError for anything else, before a list is made that no recipe may have.
    """
    from baq_cli.recipes.schema import MOST_SEEDS

    try:
        if "," not in text and ".." not in text:
            parts = [range(int(text))]
        else:
            parts = [_seeds_of(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(
            f"{flag} {clipped(text)}: expected a count (3), seeds (4,7) or a range of them (4..7)"
        ) from error
    if not 1 <= sum(max(0, part.stop - part.start) for part in parts) <= MOST_SEEDS:
        alone = f"; seed 0 alone is {flag} 0," if text.strip() == "0" else ""
        raise UsageError(f"{flag} {clipped(text)}: expected 1 to {MOST_SEEDS:,} seeds{alone}")
    return [seed for part in parts for seed in part]


def _seeds_of(part: str) -> range:
    """Return the seeds of `4` or `4..7`; raises ValueError for other words."""
    first, dots, last = part.partition("..")
    return range(int(first), int(last if dots else first) + 1)


def words(text: str | None) -> list[str]:
    """Return the words of a list that is separated by commas."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def environment_arguments(given: list[str] | None) -> dict[str, Any] | None:
    """Return what `--env-arg KEY=VALUE` words say, None without any.

    Raises UsageError for a word of another form, and for what is no argument.
    """
    from baq_cli.untrusted import check_arguments, parse_argument

    found = {}
    for word in given or []:
        name, equals, text = word.partition("=")
        try:
            if not equals:
                raise ValueError("expected KEY=VALUE")
            found[name] = parse_argument(text)
            check_arguments(found)
        except ValueError as error:
            raise UsageError(f"cannot read --env-arg {clipped(word)}: {error}") from error
    return found or None


def environment(
    env: str | None, env_arg: list[str] | None, max_episode_steps: int | None = None
) -> EnvChoice:
    """Return what a command's flags say of the environment."""
    from baq_cli.envs.ref import EnvChoice

    return EnvChoice(env, environment_arguments(env_arg), max_episode_steps)


def flags(**given: Any) -> Layer:
    """Return the flags that were given as a layer of a recipe."""
    layer = {key: value for key, value in given.items() if value is not None}
    if "env_arg" in layer:
        layer["env_args"] = environment_arguments(layer.pop("env_arg")) or {}
    if "seeds" in layer:
        layer["seeds"] = parse_seeds(layer["seeds"])
    if "track" in layer:
        layer["track"] = words(layer["track"])
    return layer


def build_recipe(base: list[Layer], recipe: str | None, given: Layer, overrides: Any) -> Recipe:
    """Resolve: `base`, then the recipe, then flags, then overrides; later ones win."""
    from baq_cli.agents.registry import method_configs
    from baq_cli.recipes.load import merged, parse_overrides, resolve
    from baq_cli.recipes.shipped import open_recipe

    layers = [*base]
    if recipe is not None:
        layers.append(open_recipe(recipe))
    layers.append(merged(given, parse_overrides(overrides or [])))
    return resolve(layers, method_configs())


def tell_idle(algo: str, overrides: list[str] | None) -> None:
    """Say on stderr which words of a command line set keys of another method than its own."""
    from baq_cli.agents.registry import METHODS

    keys = [word.partition("=")[0] for word in overrides or []]
    idle = [key for key in keys if key.partition(".")[0] in METHODS.keys() - {algo}]
    if idle:
        change = "changes" if len(idle) == 1 else "change"
        say(f"{listed(idle)} {change} nothing: this run trains {algo}", err=True)


def method_named(recipe: str | None, given: Layer, overrides: Any) -> str | None:
    """Return the method that a recipe, flags or overrides name, the later before the former."""
    from baq_cli.recipes.load import merged, parse_overrides
    from baq_cli.recipes.shipped import open_recipe

    layer = {} if recipe is None else open_recipe(recipe)
    algo = merged(layer, merged(given, parse_overrides(overrides or []))).get("algo")
    return algo if isinstance(algo, str) else None


def intervention_named(given: Layer, overrides: Any) -> str | None:
    """Return who may take over by the command line itself, whatever a recipe says."""
    from baq_cli.recipes.load import merged, parse_overrides

    section = merged(given, parse_overrides(overrides or [])).get("intervention")
    by = section.get("by") if isinstance(section, dict) else None
    return by if isinstance(by, str) else None


def command_line() -> str:
    """Return the command as it was typed."""
    return in_shell(["baq", *sys.argv[1:]])


def resume_command() -> str:
    """Return the command that continues this one."""
    words = [word for word in sys.argv[1:] if word != "--resume"]
    return in_shell(["baq", *words, "--resume"])
