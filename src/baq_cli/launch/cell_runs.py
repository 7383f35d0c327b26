"""A cell's run: its phases, those that its method has, from where they were left."""

from __future__ import annotations

from dataclasses import replace

from baq_cli.agents.registry import METHODS, method_configs, online_draws_from_data
from baq_cli.data.episodes import Episodes
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.phases.commands import run_finetune, run_pretrain
from baq_cli.engine.phases.origin import Origin, environment_on, named_nowhere
from baq_cli.engine.phases.request import RunRequest
from baq_cli.errors import EnvironmentMismatch
from baq_cli.launch.cells import Cell
from baq_cli.recipes.load import Layer, reopen
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Note, Observer

NOT_KEPT: Layer = {"keep_transitions": False}
"""What a comparison's cells have by default: nobody asks for their transitions."""


def recipe_of(cell: Cell) -> Recipe:
    """Return a cell's recipe; what one of an earlier version lacks means what it did then."""
    return reopen(NOT_KEPT | cell.recipe, method_configs())


def sees_data(recipe: Recipe) -> bool:
    """Return whether a recipe's method opens the dataset, in one of its phases."""
    algo = recipe.run.algo
    return METHODS[algo].learns_offline or online_draws_from_data(algo, recipe.method)


def beside(cell: Cell, episodes: Episodes) -> Cell:
    """Return the cell with its environment named whole, if its method sees no dataset to ask.

    It is the one, with the limit, in which methods that see the dataset act. Raises
    EnvironmentMismatch as making it does, and where there is none: methods are compared as they
    are fine-tuned.
    """
    recipe = recipe_of(cell)
    reason = named_nowhere(recipe, episodes)
    if reason is not None:
        raise EnvironmentMismatch(
            f"{reason}, and a comparison fine-tunes in one: name it with --env ID. Runs of 'baq "
            "pretrain' alone are put beside each other by 'baq report'."
        )
    if sees_data(recipe):
        return cell
    quiet: Observer = lambda event: None  # noqa: E731
    env = Origin.make(environment_on(recipe, episodes, quiet), quiet, episodes.cut_after).acts_in
    named = {"env": env.id, "env_args": env.kwargs or None}
    limit = {"max_episode_steps": env.max_episode_steps}
    return replace(cell, recipe=cell.recipe | named | limit)


def run_cell(cell: Cell, observer: Observer) -> None:
    """Run a cell's phases, those that its method has, from where they were left."""
    recipe = recipe_of(cell)
    method = METHODS[recipe.run.algo]
    source = None
    if method.learns_offline:
        observer(Note(f"{cell.name}: pre-training"))
        run_pretrain(recipe, _order(cell, "offline", observer))
        source = ckpt.load(cell.folder / "offline")
    if method.learns_online and not cell.offline_only:
        observer(Note(f"{cell.name}: fine-tuning"))
        order = _order(cell, "online", observer)
        run_finetune(recipe if sees_data(recipe) else _without_data(recipe), order, source)


def _order(cell: Cell, phase: str, observer: Observer) -> RunRequest:
    return RunRequest(cell.folder / phase, observer, cell.command, cell.command, resume=True)


def _without_data(recipe: Recipe) -> Recipe:
    """Return the recipe without its dataset."""
    run = recipe.run.model_copy(update={"dataset": None})
    return Recipe(run, recipe.method)
