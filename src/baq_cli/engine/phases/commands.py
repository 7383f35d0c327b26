"""What the commands do: pre-train and fine-tune, from recipe to run directory."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import torch

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import METHODS, make_agent
from baq_cli.data.episodes import Episodes
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.handover import check_inputs, continuing, hand_over
from baq_cli.engine.experience.inputs import RETURNS_RANGE, Inputs, offline_store
from baq_cli.engine.experience.reader import StoreReader
from baq_cli.engine.experience.store import Store
from baq_cli.engine.experience.stores import stores_by_name
from baq_cli.engine.phases.offline import pretrain
from baq_cli.engine.phases.online import OnlineLoop, finetune
from baq_cli.engine.phases.run import Run
from baq_cli.engine.phases.start import (
    Origin,
    RunRequest,
    check_same_environment,
    checked_origin,
    offline_origin,
    online_origin,
    open_checked,
    saved_run,
    settle,
)
from baq_cli.engine.updates.device import hardware, prepare
from baq_cli.engine.updates.learner import Learner
from baq_cli.engine.updates.threads import choose_threads
from baq_cli.errors import UsageError
from baq_cli.recipes.load import to_yaml
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Note, Observer
from baq_cli.runs.folder import RunDirectory
from baq_cli.runs.interrupt import Interruption, listen
from baq_cli.runs.lock import held
from baq_cli.runs.provenance import git_revision, versions
from baq_cli.runs.trackers.hub import require_trackers
from baq_cli.units import UNITS, Phase


def run_pretrain(recipe: Recipe, order: RunRequest) -> None:
    """Pre-train a method on the recipe's dataset."""
    method = METHODS[recipe.run.algo]
    if not method.learns_offline:
        raise UsageError(
            f"'{method.name}' doesn't learn from a dataset: use 'baq finetune --env ID --algo "
            f"{method.name}', or pre-train one of {_offline_methods()}."
        )
    dataset = recipe.run.dataset
    if dataset is None:
        raise UsageError("pre-training needs a dataset: give --dataset ID ('baq data list')")
    require_trackers(recipe.run.track)
    device = prepare(recipe.run.device, recipe.run.threads, recipe.run.tf32)
    directory = RunDirectory(order.out)
    saved, recipe = saved_run(directory, recipe, order, "offline")
    episodes = open_checked(dataset, saved, order.observer)
    origin = offline_origin(recipe, episodes, order.observer)
    spec = _spec(recipe, origin, episodes, device)
    agent = make_agent(recipe.run.algo, recipe.method, spec, "offline")
    _check_schedule(agent, recipe, saved)
    inputs = _inputs(recipe, agent, saved, episodes, order.observer)
    store = offline_store(episodes, inputs, agent.spec, agent.data_columns, recipe.method.discount)
    learner = Learner(agent)
    with listen() as interruption, held(order.out, observer=order.observer):
        run = _begin("offline", recipe, order, origin, learner, inputs, interruption, saved)
        with closing(run):
            pretrain(run, store, saved, order.resume_command)
            run.finish()


def run_finetune(recipe: Recipe, order: RunRequest, source: ckpt.Checkpoint | None) -> None:
    """Fine-tune from a checkpoint, or from scratch without one.

    A dataset is opened only for a method that draws from it online.
    """
    _check_online(recipe, source)
    require_trackers(recipe.run.track)
    device = prepare(recipe.run.device, recipe.run.threads, recipe.run.tf32)
    start = open_start(recipe, order, source, device)
    recipe, saved, learner = start.recipe, start.saved, start.learner
    with listen() as interruption, held(order.out, observer=order.observer):
        run = _begin(
            *("online", recipe, order, start.origin, learner, start.inputs, interruption, saved)
        )
        if source is not None and saved is None:
            run.inherit_history(source.document["history"])
        with closing(run):
            of_loop = run, start.store, source is None
            loop = OnlineLoop.resume(*of_loop, saved) if saved else OnlineLoop.start(*of_loop)
            with closing(loop):
                finetune(loop, order.resume_command)
            run.finish()


@dataclass
class Start:
    """What an online phase begins or goes on with. `store` is the dataset, where it is drawn from;
    `saved` the checkpoint of this phase that it goes on from.
    """

    recipe: Recipe
    saved: ckpt.Checkpoint | None
    origin: Origin
    learner: Learner
    inputs: Inputs
    store: Store | None


def open_start(
    recipe: Recipe, order: RunRequest, source: ckpt.Checkpoint | None, device: torch.device
) -> Start:
    """Open the run, the checkpoint it continues and the dataset, checked against each other.

    A run that begins takes over what the source holds; one that is resumed has it already.
    """
    saved, recipe = saved_run(RunDirectory(order.out), recipe, order, "online")
    known = saved or source
    episodes = _episodes(recipe, known, source is None, order.observer)
    origin = online_origin(recipe, source, episodes, order.observer)
    if source is not None and episodes is not None:
        origin = checked_origin(origin, episodes, order.observer)
    spec = _spec(recipe, origin, episodes, device, known)
    agent = make_agent(recipe.run.algo, recipe.method, spec, "online")
    _check_schedule(agent, recipe, saved)
    learner = Learner(agent)
    if episodes is None and learner.plan.needs_offline:
        raise UsageError(
            f"'{recipe.run.algo}' draws a share of every batch from a dataset, and there is none: "
            f"give --dataset ID, or {recipe.run.algo}.online_share=null to draw from what there is."
        )
    inputs = _inputs(recipe, agent, known, episodes, order.observer)
    store, discount = None, learner.plan.discount or recipe.method.discount
    if episodes is not None:
        store = offline_store(episodes, inputs, spec, agent.data_columns, discount)
    if source is not None:
        check_inputs(recipe, source, inputs)
    if source is not None and saved is None:
        data = StoreReader(agent, stores_by_name(store), discount)
        hand_over(learner, source, recipe, data, order.observer)
    return Start(recipe, saved, origin, learner, inputs, store)


# -- parts


def _episodes(
    recipe: Recipe, known: ckpt.Checkpoint | None, from_scratch: bool, observer: Observer
) -> Episodes | None:
    """Return the dataset, where there is one; a method that never draws from it needs none.

    From scratch it is opened all the same: it says what environment and returns are like.
    """
    dataset = recipe.run.dataset
    if dataset is None and known is not None and known.document["dataset"] is not None:
        dataset = known.document["dataset"]["id"]
    if dataset is None:
        return None
    if known is not None and not from_scratch:
        sizes = known.document["spaces"]
        dims = sizes["obs_dim"], len(sizes["action_low"])
        spec = Spec(recipe.run.seeds, *dims, device=torch.device("meta"))
        plan = make_agent(recipe.run.algo, recipe.method, spec, "online").online_plan()
        if not plan.uses_offline:
            return None
    return open_checked(dataset, known, observer)


def _offline_methods() -> str:
    return ", ".join(name for name, method in METHODS.items() if method.learns_offline)


def _check_online(recipe: Recipe, source: ckpt.Checkpoint | None) -> None:
    method = METHODS[recipe.run.algo]
    if not method.learns_online:
        raise UsageError(
            f"'{method.name}' has no online phase: continue its checkpoint with --algo, one of "
            f"{', '.join(continuing(method.name))}."
        )
    if method.needs_own_pretraining and (source is None or source.document["algo"] != method.name):
        raise UsageError(
            f"'{method.name}' builds on its own pre-training: run 'baq pretrain --algo "
            f"{method.name}' first, then fine-tune that checkpoint."
        )


def _check_schedule(agent: Agent, recipe: Recipe, saved: ckpt.Checkpoint | None) -> None:
    """Raise UsageError when a resume would bend what a schedule has done."""
    if saved is None:
        return
    unit = UNITS[agent.phase]
    before, asked = saved.document["recipe"][unit], getattr(recipe.run, unit)
    if before == asked:
        return
    cosine = agent.phase == "offline" and any(g.cosine for g in agent.groups().values())
    if cosine:
        raise UsageError(
            f"the run's cosine learning rate ends at {before} {unit}, and this command "
            f"says {asked}: resume with {before}, or start a run of its own."
        )
    if "share" in agent.reads_clock:
        raise UsageError(
            f"'{agent.name}' changes over the whole phase, which was to end at {before} {unit}, "
            f"and this command says {asked}: resume with {before}, or start a run of its own."
        )


def _spec(
    recipe: Recipe,
    origin: Origin,
    episodes: Episodes | None,
    device: torch.device,
    known: ckpt.Checkpoint | None = None,
) -> Spec:
    returns = (0.0, 1.0)
    if known is not None:
        low, high = known.document["return_range"]
        returns = (low, high)
    elif episodes is not None:
        returns = (float(episodes.returns.min()), float(episodes.returns.max()))
    spaces = origin.spaces
    return Spec(recipe.run.seeds, spaces.obs_dim, spaces.action_dim, returns, device)


def _inputs(
    recipe: Recipe,
    agent: Agent,
    known: ckpt.Checkpoint | None,
    episodes: Episodes | None,
    observer: Observer,
) -> Inputs:
    """Return the inputs that a checkpoint fixed, or those of a run that begins."""
    if known is not None:
        return Inputs.from_tensors(known.agent)
    inputs = Inputs.fit(recipe.method, agent.spec.obs_dim, episodes)
    if recipe.method.reward_scale == "returns" and "reward_scale" not in recipe.method.unused:
        key = f"{recipe.run.algo}.reward_scale"
        observer(
            Note(
                f"updates multiply rewards by {inputs.reward_scale:.4g}, so that the dataset's "
                f"returns span {RETURNS_RANGE:.0f} ({key}=1 leaves them)"
            )
        )
    return inputs


def _set_threads(
    recipe: Recipe, spec: Spec, order: RunRequest, saved: ckpt.Checkpoint | None
) -> None:
    """Use the threads that the recipe names, or the resumed run used, or that are faster here.

    The order of a sum, and with it the last bit of a number, may depend on them.
    """
    if recipe.run.threads is not None or spec.device.type != "cpu":
        return
    count = int(saved.state["threads"]) if saved else choose_threads(recipe, spec)
    torch.set_num_threads(count)
    order.observer(Note(f"{count} CPU thread{'s' if count > 1 else ''} (threads=N sets them)"))


def _begin(
    phase: Phase,
    recipe: Recipe,
    order: RunRequest,
    origin: Origin,
    learner: Learner,
    inputs: Inputs,
    interruption: Interruption,
    saved: ckpt.Checkpoint | None,
) -> Run:
    """Return the run, its directory begun unless it resumes from a checkpoint."""
    directory = RunDirectory(order.out)
    settle(directory, saved, order)
    if saved is not None:
        check_same_environment(directory, saved, origin)
    _set_threads(recipe, learner.agent.spec, order, saved)
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
        }
        directory.begin(to_yaml(recipe, order.command), manifest)
    run = Run(
        recipe,
        phase,
        origin,
        learner.agent,
        inputs,
        learner,
        directory,
        order.observer,
        interruption,
    )
    if saved is None:
        run.trackers.begin()
    return run
