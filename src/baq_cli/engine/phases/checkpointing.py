"""What of a run its checkpoints hold: written at a counter, read when it goes on there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.retention import prune, worth_keeping
from baq_cli.engine.experience.stores import Stores
from baq_cli.engine.phases.run import Run
from baq_cli.envs.ref import document_of
from baq_cli.errors import DataError
from baq_cli.runs.events import Note
from baq_cli.runs.history import History
from baq_cli.runs.provenance import versions
from baq_cli.units import UNITS


def save(
    run: Run,
    done: int,
    replay: ckpt.Tensors,
    state: dict[str, Any],
    stores: Stores,
) -> None:
    """Write a checkpoint at a counter of the phase's unit, and prune older ones.

    Raises NonFiniteError instead of saving parameters that are not finite.
    """
    run.faults.check_parameters(run.learner.not_finite(), run.learner.gradient_steps)
    if any(pending.done != done for pending in run.evaluations.pending):
        run.collect()
    training = run.learner.state() | run.evaluations.tensors() | run.guard.tensors()
    training |= {f"stream.{name}": stream.state() for name, stream in run.streams.items()}
    training |= stores.tensors()
    state = {
        "phase": run.phase,
        "done": done,
        **run.evaluations.state(),
        "faults": run.faults.count,
        "from_scratch": run.from_scratch,
        "guard": run.guard.state(),
        "episodes": run.episodes.tolist(),
        **run.counts.state(),
        **run.diagnostics.state(),
        "wall_seconds": run.laps.in_all,
        "inherited": run.history.inherited,
        "threads": torch.get_num_threads(),
        "sizes": run.directory.sizes(),
        **stores.state(),
        **state,
    }
    blocks = stores.blocks()
    others = {name: blocks[name] for name in ("offline", "model")}
    agent = dict(run.agent.state_dict()) | run.inputs.tensors()
    whole = ckpt.Checkpoint(
        *(document(run), agent, training, replay, state, blocks["online"]),
        *(others, run.last_saved),
    )
    run.last_saved = ckpt.save(run.directory.path, run.phase, done, whole)
    rules = run.recipe.run
    place = run.directory.path, run.phase
    spared = {pending.done for pending in run.evaluations.pending}
    if rules.control is not None:
        spared.add(0)  # its training can be repeated from there
    stay = worth_keeping(*place, run.history.own, spared)
    prune(*place, rules.keep_checkpoints, rules.keep_agents, stay)


def document(run: Run) -> dict[str, Any]:
    """Describe the agent file: everything needed to use it without this run."""
    return {
        "format": ckpt.FORMAT,
        "algo": run.recipe.run.algo,
        "phase": run.phase,
        "recipe": run.recipe.as_dict(),
        "seeds": list(run.spec.seeds),
        **document_of(run.origin.env),
        "spaces": asdict(run.origin.spaces),
        "return_range": list(run.spec.return_range),
        "dataset": run.origin.dataset,
        "gradient_steps": run.learner.gradient_steps,
        "env_steps": run.env_steps,
        "versions": versions(),
        "history": run.history.rows,
    }


def restore(run: Run, saved: ckpt.Checkpoint) -> int:
    """Continue from a checkpoint of this phase; return the counter it was made at."""
    state = saved.state
    run.agent.load_state_dict(ckpt.agent_tensors(saved), strict=True)
    try:
        run.learner.restore(saved.training, int(saved.document["gradient_steps"]))
        for name, stream in run.streams.items():
            stream.restore(saved.training[f"stream.{name}"])
    except RuntimeError as error:
        raise DataError(
            f"{saved.folder} can't be continued on {run.spec.device}: its random streams are "
            f"those of another device ({error})"
        ) from error
    run.env_steps = int(saved.document["env_steps"])
    run.evaluations.restore(state, saved.training, saved.folder or run.directory.path)
    run.faults.count = int(state["faults"])
    run.guard.restore(state["guard"], saved.training)
    run.episodes = np.asarray(state["episodes"], dtype=np.int64)
    run.counts.restore(state)
    run.diagnostics.restore(state)
    run.laps.earlier = float(state["wall_seconds"])
    run.history = History(list(saved.document["history"]), int(state.get("inherited", 0)))
    run.directory.restore(state["sizes"], run.history.rows, run.observer)
    run.last_saved = saved.folder
    run.trackers.resume()
    done = int(state["done"])
    run.going.pace.count_from(done, run.learner.gradient_steps)
    run.observer(Note(f"resumed at {done} {UNITS[run.phase]}"))
    run.collect()
    return done
