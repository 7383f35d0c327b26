"""Behaviours: policies that a dataset is collected with, and the files that ship them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.restore import evaluate_checkpoint, load_agent
from baq_cli.engine.checkpoints.tensors import tensor_bytes
from baq_cli.envs.ref import EnvRef, document_of
from baq_cli.errors import UsageError
from baq_cli.runs.files import disk_errors, replace_file


def export_behavior(checkpoint: Path, out: Path, episodes: int) -> dict[str, Any]:
    """Write the policy of a one-seed checkpoint to a small file; return what it says of itself.

    Parameters are kept as float16, and the return is measured on what was kept, where the
    checkpoint has an environment.
    Raises UsageError for a checkpoint of several seeds.
    """
    saved = ckpt.load(checkpoint)
    seeds = saved.document["seeds"]
    if len(seeds) != 1:
        raise UsageError(f"a behaviour has one seed, {checkpoint} holds {seeds}")
    acting = load_agent(checkpoint)[0].acting_parts()
    tensors = {
        name: tensor.half() if name.startswith(acting) else tensor
        for name, tensor in saved.agent.items()
        if name.startswith((*acting, "inputs."))
    }
    document = {
        "format": ckpt.FORMAT,
        "kind": "behavior",
        **{
            key: saved.document[key]
            for key in (
                *("algo", "phase", "recipe", "seeds", "spaces", "return_range"),
                *("gradient_steps", "env_steps", "versions"),
            )
        },
        **document_of(EnvRef.of_document(saved.document)),
        "dataset": None,
        "history": [],
    }
    with disk_errors(f"write {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, tensor_bytes(tensors, document))
    if document["env_id"] is None:
        return document
    returns, _, _ = evaluate_checkpoint(out, None, episodes, 0)
    document["return_mean"] = float(returns.mean())
    document["return_std"] = float(returns.std())
    document["return_episodes"] = episodes
    with disk_errors(f"write {out}"):
        replace_file(out, tensor_bytes(tensors, document))
    return document


def describe(path: Path, document: dict[str, Any]) -> str:
    """Return a line about a behaviour: how it was trained, and its return where measured."""
    env = EnvRef.of_document(document)
    where = "on a dataset alone" if env is None else f"on {env}"
    text = f"{path.stem}: {document['algo']} {where} after {document['env_steps']} env_steps"
    if "return_mean" in document:
        text += (
            f", return {document['return_mean']:.0f} ± {document['return_std']:.0f} over "
            f"{document['return_episodes']} episodes of its mode"
        )
    return text
