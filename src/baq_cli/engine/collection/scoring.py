"""Reference scores: measured, stored with a dataset, and found by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from baq_cli.data.minari.folder import open_minari
from baq_cli.data.minari.stored import StoredDataset, update_metadata
from baq_cli.engine.checkpoints.restore import evaluate_checkpoint
from baq_cli.engine.evaluation.evaluator import Evaluator
from baq_cli.envs.ref import EnvRef
from baq_cli.envs.scores import (
    D4RL,
    KEPT,
    OWN,
    Reference,
    measuring,
    named_or_refuse,
    own_beside,
    stored,
)
from baq_cli.errors import UsageError
from baq_cli.nets.streams import SeedStream
from baq_cli.runs.provenance import versions
from baq_cli.units import scores

NUMBER = "reference"


def measure_random(env: EnvRef | str, episodes: int) -> dict[str, Any]:
    """Return the raw returns of uniformly random actions: mean, spread and count."""
    evaluator = Evaluator(env, (0,), episodes)
    stream = SeedStream((0,), "reference/random", torch.device("cpu"))
    width = evaluator.pool.spaces.action_dim
    returns, _ = evaluator.play(
        lambda obs, _: stream.uniform(len(obs), width).squeeze(0).numpy() * 2 - 1, NUMBER
    )
    evaluator.close()
    return _facts(returns)


def measure_expert(env: EnvRef, checkpoint: Path, episodes: int) -> dict[str, Any]:
    """Return the same of a checkpoint's policies, all seeds together, with what they are."""
    returns, _, saved = evaluate_checkpoint(checkpoint, env, episodes, 0)
    document = saved.document
    about = f"{document['algo']} after {document['env_steps']} env_steps, {checkpoint.name}"
    return {**_facts(returns), "policy": about}


def _facts(returns: Any) -> dict[str, Any]:
    return {
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "episodes": int(returns.size),
    }


def check_target(dataset_id: str, env: EnvRef, has_expert: bool) -> None:
    """Raise UsageError unless references of an environment may be stored with a dataset."""
    if not has_expert:
        raise UsageError("a stored reference needs an expert too: give --checkpoint PATH")
    _check_made_in(open_minari(dataset_id), env)


def _check_made_in(dataset: StoredDataset, env: EnvRef) -> None:
    """Raise UsageError unless a dataset, and the references stored with it, are of an environment.

    A dataset is of the one it was recorded in, and of the one that it names for evaluation.
    """
    specs = [spec for spec in (dataset.env_spec, dataset.eval_env_spec) if spec is not None]
    reference = dataset.metadata.get("baq_reference")
    told = reference.get("environment") if isinstance(reference, dict) else None
    made_in = [spec.id for spec in specs] or ([str(told)] if told else [])
    if made_in and _bare(env.id) not in map(_bare, made_in):
        raise UsageError(
            f"dataset '{dataset.dataset_id}' was made in {made_in[0]}: references for {env} and "
            "those stored with it don't belong together"
        )


def _bare(env_id: str) -> str:
    """Return an environment's id without the module that registers it."""
    return env_id.rpartition(":")[2]


def _check_measured_in(dataset: StoredDataset, env: EnvRef) -> None:
    """Raise UsageError where references were measured with other settings than an environment has.

    Those of earlier versions, and of other tools, don't say with which.
    """
    said = dataset.metadata.get("baq_reference")
    if not isinstance(said, dict) or not isinstance(said.get("env_args"), dict):
        return
    measured = EnvRef.of_document({"env_id": env.id} | said)
    assert measured is not None
    if replace(measured, id=env.id) != env:
        raise UsageError(
            f"the references stored with '{dataset.dataset_id}' were measured in {measured}, and "
            f"this is {env}: leave --reference out, or measure others with 'baq data "
            "score-reference'"
        )


def store_reference(dataset_id: str, env: EnvRef, measured: dict[str, dict[str, Any]]) -> None:
    """Keep measured references in a dataset's metadata, where Minari keeps them too.

    Raises UsageError where the expert is no better than random.
    """
    random, expert = (measured[name]["return_mean"] for name in ("random", "expert"))
    if expert <= random:
        least, most = scores(random, expert)
        raise UsageError(
            f"the expert's return {most} is not above random's {least}: a score between them would "
            "mean nothing"
        )
    stored_with = open_minari(dataset_id)
    _check_made_in(stored_with, env)
    used = ", ".join(f"{n} {v}" for n, v in versions().items() if n in ("gymnasium", "mujoco"))
    source = f"measured on {env} with {used}; expert: {measured['expert']['policy']}"
    update_metadata(
        stored_with,
        {
            "ref_min_score": random,
            "ref_max_score": expert,
            "num_episodes_average_score": measured["expert"]["episodes"],
            "baq_reference": {
                "environment": env.id,
                **env.document(),
                "source": source,
                **measured,
            },
        },
    )


def find_reference(name: str, env: EnvRef) -> Reference:
    """Return the reference called `d4rl` or `baq`, or the one stored with the dataset of that id.

    Raises UsageError when there is none.
    """
    if name in (D4RL, OWN):
        return named_or_refuse(name, env)
    kept_with = open_minari(name)
    _check_made_in(kept_with, env)
    _check_measured_in(kept_with, env)
    found = stored(kept_with.metadata, name)
    if found is None:
        low, high = map(kept_with.metadata.get, KEPT)
        no_scale = "" if low is high is None else f" that make a scale ({low} to {high})"
        raise UsageError(
            f"dataset '{name}' has no reference scores{no_scale}: store them with "
            f"'{measuring(env)} --dataset {name}'{own_beside(env)}"
        )
    return found
