"""What the commands do: pre-train and fine-tune, from recipe to run directory."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from baq_cli.agents.base import Agent
from baq_cli.agents.registry import METHODS, online_draws_from_data
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.continuing import continuing
from baq_cli.engine.phases.again import as_begun, copy_beginning, repeat
from baq_cli.engine.phases.choosers import chooser_of
from baq_cli.engine.phases.clocked import ClockedLoop, check_clocked
from baq_cli.engine.phases.offline import pretrain
from baq_cli.engine.phases.online import OnlineLoop, finetune
from baq_cli.engine.phases.origin import check_same_environment, comparable_history
from baq_cli.engine.phases.request import RunRequest
from baq_cli.engine.phases.resuming import settle, write_in_force
from baq_cli.engine.phases.run import Run
from baq_cli.engine.phases.start import Start, open_offline, open_online
from baq_cli.engine.phases.turns import ClockedLearner
from baq_cli.engine.robot.chooser import Policy
from baq_cli.engine.updates.device import hardware, prepare
from baq_cli.engine.updates.threads import choose_threads
from baq_cli.errors import UsageError, listed
from baq_cli.machine import usable_cores
from baq_cli.recipes.load import to_yaml
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.checkpoints import complete
from baq_cli.runs.events import Note
from baq_cli.runs.folder import RunDirectory
from baq_cli.runs.interrupt import Interruption, listen
from baq_cli.runs.lock import held
from baq_cli.runs.provenance import git_revision, versions
from baq_cli.runs.trackers.hub import require_trackers
from baq_cli.units import Phase, amount


def run_pretrain(recipe: Recipe, order: RunRequest) -> None:
    """Pre-train a method on the recipe's dataset."""
    method = METHODS[recipe.run.algo]
    if not method.learns_offline:
        data = online_draws_from_data(method.name, recipe.method)
        raise UsageError(
            f"'{method.name}' has no offline phase: use 'baq finetune --env ID "
            f"{'--dataset ID ' if data else ''}--algo {method.name}', or pre-train one of "
            f"{_offline_methods()}."
        )
    dataset = recipe.run.dataset
    if dataset is None:
        raise UsageError("pre-training needs a dataset: give --dataset ID ('baq data list')")
    require_trackers(recipe.run.track)
    device = prepare(recipe.run.device, recipe.run.threads, recipe.run.tf32)
    start = open_offline(recipe, dataset, order, device)
    with listen() as interruption, held(order.out, observer=order.observer):
        run = _begin("offline", start, order, interruption)
        with closing(run):
            assert start.store is not None
            pretrain(run, start.store, start.saved, order.resume_command)
            run.finish()


def run_finetune(recipe: Recipe, order: RunRequest, source: ckpt.Checkpoint | None) -> None:
    """Fine-tune from a checkpoint, or from scratch without one.

    A dataset is opened only for a method that draws from it online.
    """
    _check_online(recipe, source, goes_on=order.resume and bool(complete(order.out)))
    check_clocked(recipe)
    require_trackers(recipe.run.track)
    device = prepare(recipe.run.device, recipe.run.threads, recipe.run.tf32)
    start = open_online(recipe, order, source, device)
    saved = start.saved
    with listen() as interruption, held(order.out, observer=order.observer):
        run = _begin("online", start, order, interruption)
        if source is not None and saved is None:
            run.inherit_history(comparable_history(recipe, source, start.origin, order.observer))
        with closing(run):
            run.finish(_finetuned(run, start, order))


def run_repeat(run: Path, order: RunRequest) -> None:
    """Make the training of a run on the wall clock again, from its logs.

    Raises UsageError where it has none, and DataError where that comes to other parameters.
    """
    if not order.resume:
        copy_beginning(run, order.out)
    recipe, saved, origin = as_begun(order.out)
    device = prepare(recipe.run.device, recipe.run.threads, recipe.run.tf32)
    resuming = replace(order, resume=True)
    start = open_online(recipe, resuming, saved, device, origin)
    with listen() as interruption, held(order.out, observer=order.observer):
        again = _begin("online", start, resuming, interruption)
        assert start.saved is not None
        with (
            closing(again),
            closing(ClockedLearner.resume(again, start.store, start.saved)) as learner,
        ):
            loop = ClockedLoop(learner, Policy)
            repeat(loop, run, order)
            again.finish(loop.facts())


def _finetuned(run: Run, start: Start, order: RunRequest) -> dict[str, object]:
    """Fine-tune in a run; return what is to be said of it beside what it says itself."""
    saved, store = start.saved, start.store
    if run.recipe.run.control is not None:
        begin = (
            ClockedLearner.resume(run, store, saved) if saved else ClockedLearner.start(run, store)
        )
        with closing(begin) as learner:
            clocked = ClockedLoop(learner, chooser_of(run.recipe, run.origin, start.other))
            clocked.finetune(order.resume_command)
            return clocked.facts()
    of_loop = run, store, start.other
    loop = OnlineLoop.resume(*of_loop, saved) if saved else OnlineLoop.start(*of_loop)
    with closing(loop):
        finetune(loop, order.resume_command)
    return {}


def _offline_methods() -> str:
    return ", ".join(name for name, method in METHODS.items() if method.learns_offline)


def _check_online(recipe: Recipe, source: ckpt.Checkpoint | None, goes_on: bool) -> None:
    """Raise UsageError for a method that can't be fine-tuned so; one that `goes_on` has begun."""
    method = METHODS[recipe.run.algo]
    if not method.learns_online:
        raise UsageError(
            f"'{method.name}' has no online phase: continue its checkpoint with --algo, one of "
            f"{', '.join(continuing(method.name))}."
        )
    others = [algo for algo in method.inherits if algo != method.name]
    taken = (method.name, *others)
    if goes_on:
        return
    if method.needs_own_pretraining and (source is None or source.document["algo"] not in taken):
        or_one = f" (or one of {listed(others)})" if others else ""
        taking = [] if source is None else continuing(source.document["algo"])
        who_can = f" The one at hand can be continued by {', '.join(taking)}." if taking else ""
        raise UsageError(
            f"'{method.name}' builds on its own pre-training: run 'baq pretrain --algo "
            f"{method.name}' first, then fine-tune that checkpoint{or_one}.{who_can}"
        )


def _set_threads(
    recipe: Recipe, agent: Agent, order: RunRequest, saved: ckpt.Checkpoint | None
) -> None:
    """Use the threads that the recipe names, or the resumed run used, or that are faster here.

    The order of a sum, and with it the last bit of a number, may depend on them.
    """
    spec = agent.spec
    if recipe.run.threads is not None or spec.device.type != "cpu":
        return
    count = int(saved.state["threads"]) if saved else choose_threads(recipe, spec)
    if recipe.run.control is not None and agent.phase == "online" and saved is None:
        count = min(count, max(1, usable_cores() - 1))  # one core acts
    torch.set_num_threads(count)
    order.observer(Note(f"{amount(count, 'CPU thread')} (threads=N sets them)"))


def _begin(phase: Phase, start: Start, order: RunRequest, interruption: Interruption) -> Run:
    """Return the run, its directory begun unless it resumes from a checkpoint."""
    recipe, saved, origin, learner = start.recipe, start.saved, start.origin, start.learner
    directory = RunDirectory(order.out)
    settle(directory, saved, order)
    if saved is not None:
        check_same_environment(directory, saved, origin)
        write_in_force(directory, recipe, order, phase)
    _set_threads(recipe, learner.agent, order, saved)
    if saved is None:
        manifest = {
            "command": order.command,
            "algo": recipe.run.algo,
            "seeds": list(recipe.run.seeds),
            "versions": versions(),
            "git_revision": git_revision(),
            "hardware": hardware(learner.agent.spec.device.type),
            "dataset": origin.dataset,
            "environment": origin.environment,
            "estimate": None if start.estimator is None else start.estimator.facts(),
        }
        directory.begin(to_yaml(recipe, order.command), manifest)
    run = Run(
        recipe,
        phase,
        origin,
        learner.agent,
        start.inputs,
        learner,
        directory,
        order.observer,
        interruption,
        start.estimator,
        from_scratch=start.from_scratch,
    )
    if saved is None:
        run.trackers.begin()
    return run
