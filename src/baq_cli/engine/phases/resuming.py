"""What a run's folder holds when a command begins or goes on with it: a run of the same recipe."""

from __future__ import annotations

from baq_cli.agents.base import Agent
from baq_cli.agents.registry import method_configs
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.phases.request import RunRequest
from baq_cli.errors import DataError, UsageError
from baq_cli.recipes.load import FREE_ON_RESUME, as_begun, differences, reopen, to_yaml
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.checkpoints import complete, point_at, put_aside
from baq_cli.runs.events import Note
from baq_cli.runs.folder import RECIPE, RunDirectory, read_logged
from baq_cli.units import UNITS, Phase
from baq_cli.untrusted import parse_yaml


def saved_run(
    directory: RunDirectory, recipe: Recipe, order: RunRequest, phase: Phase
) -> tuple[ckpt.Checkpoint | None, Recipe]:
    """Return the checkpoint to resume from, or None to start; and the recipe of the run.

    That is the one given, but for defaults that have changed since the run began: those stay.
    Raises UsageError when the folder's run has another phase or recipe, or is there without
    --resume.
    """
    directory.check_free(order.resume)
    if not directory.holds_run:
        return None, recipe
    if not complete(directory.path):
        order.observer(Note(f"no checkpoint in {directory.path} yet: starting from the beginning"))
        return None, recipe
    saved = ckpt.load_newest(directory.path, order.observer)
    if saved.document["phase"] != phase:
        raise UsageError(
            f"cannot resume {directory.path}: it holds an {saved.document['phase']} phase, and "
            f"this command runs an {phase} one. Choose another --out."
        )
    recipe = as_begun(recipe, reopen(saved.document["recipe"], method_configs()))
    changed = differences(saved.document["recipe"], recipe.as_dict())
    if changed:
        raise UsageError(
            f"cannot resume {directory.path} with another recipe: {'; '.join(changed)}. Give the "
            "run's own values (its recipe.yaml), or choose another --out."
        )
    return saved, recipe


def settle(directory: RunDirectory, saved: ckpt.Checkpoint | None, order: RunRequest) -> None:
    """Look again at a folder that is held from now on, and put damaged checkpoints aside.

    Raises UsageError when it is not as it was when `saved` was read.
    """
    directory.check_free(order.resume)
    folders = complete(directory.path)
    known = [] if saved is None else [saved.folder, *saved.damaged]
    if folders[len(folders) - len(known) :] != known or (folders and not known):
        raise UsageError(
            f"{directory.path} has checkpoints that this command hasn't read: another process "
            "wrote them meanwhile. Give the command again, or choose another --out."
        )
    if saved is None or saved.folder is None:
        return
    for folder in saved.damaged:
        order.observer(Note(f"what can't be read is kept as {put_aside(folder)}"))
    point_at(saved.folder)


def write_in_force(
    directory: RunDirectory, recipe: Recipe, order: RunRequest, phase: Phase
) -> None:
    """Write a resumed run's recipe again where what may change of it has: reports believe it.

    How long the pre-training was that an online run goes on from is not for its resume to say.
    """
    try:
        content, _ = read_logged(directory.path, RECIPE)
        written = parse_yaml(content.decode())
    except (DataError, ValueError):  # whoever reports it is told
        return
    if not isinstance(written, dict):
        return
    if phase == "online" and isinstance(written.get("gradient_steps"), int):
        kept = {"gradient_steps": written["gradient_steps"]}
        recipe = Recipe(recipe.run.model_copy(update=kept), recipe.method)
    now = recipe.as_dict()
    if any(written.get(key) != now[key] for key in FREE_ON_RESUME):
        directory.write_recipe(to_yaml(recipe, order.command))


def check_schedule(agent: Agent, recipe: Recipe, saved: ckpt.Checkpoint | None) -> None:
    """Raise UsageError when a resume would bend what a schedule has done, or end before it."""
    if saved is None:
        return
    unit = UNITS[agent.phase]
    before, asked = saved.document["recipe"][unit], getattr(recipe.run, unit)
    check_budget(agent, int(saved.document[unit]), before, asked)


def check_budget(agent: Agent, trained: int, before: int, asked: int) -> None:
    """Raise UsageError where a phase can't go on to the steps that are asked for.

    It has come to `trained` of them, and was to end at `before`.
    """
    unit = UNITS[agent.phase]
    if before != asked:
        cosine = agent.phase == "offline" and any(g.cosine for g in agent.groups().values())
        if cosine:
            raise UsageError(
                f"the run's cosine learning rate ends at {before} {unit}, and this command "
                f"says {asked}: resume with {before}, or start a run of its own."
            )
        if "share" in agent.reads_clock:
            raise UsageError(
                f"'{agent.name}' changes over the whole phase, which was to end at {before} "
                f"{unit}, and this command says {asked}: resume with {before}, or start a run of "
                "its own."
            )
    if asked < trained:
        raise UsageError(
            f"the run has come to {trained} {unit} already, and this command says {asked}: resume "
            f"with {trained} or more, or start a run of its own."
        )
