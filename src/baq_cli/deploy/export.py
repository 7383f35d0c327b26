"""Exporting a policy: its file is checked against the checkpoint before it is put in place."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from baq_cli import __version__
from baq_cli.deploy.graphs import ExportedPolicy, FormatName, Run, require_format
from baq_cli.deploy.policy import DeployedPolicy, OneSeed, load_one_seed, plain_mode_of
from baq_cli.envs.ref import EnvRef, document_of
from baq_cli.errors import DataError, UsageError
from baq_cli.nets.exports import NoExport
from baq_cli.nets.streams import SeedStream
from baq_cli.plain_files import replaced
from baq_cli.runs.files import disk_errors

Array = npt.NDArray[Any]
TOLERANCE = 1e-5
"""The largest difference of an action, in halves of its range: bounds of ±1 have a half of 1."""


@dataclass(frozen=True)
class Group:
    """Observations that a file is checked on, `spread` standard deviations about the mean.

    Where float32 rounds in the checkpoint's own policy by more than the tolerance, `rounding`
    times that is allowed. Far from the data large numbers nearly cancel, and a runtime that adds
    them in another order, as each does, rounds differently: no float32 file can do better.
    """

    name: str
    count: int
    spread: float
    rounding: float


GROUPS = (
    Group("ordinary", 800, 1.0, 3.0),
    Group("far", 100, 10.0, 8.0),
    Group("extreme", 100, 100.0, 8.0),
)


def export_policy(
    checkpoint: Path, name: FormatName, out: Path, seed: int | None = None
) -> dict[str, Any]:
    """Write one seed's policy to a file that acts alone; return what is known of it, for JSON.

    The file is written under a temporary name, loaded, compared with the checkpoint's policy on
    1,000 observations, `[B, obs_dim]` at once and one by one, and renamed.
    Raises DataError when it acts differently or can't be written, and leaves nothing; UsageError
    when the format's packages are missing, or the method acts with something else than a policy.
    """
    form = require_format(name)
    one = load_one_seed(checkpoint, seed)
    mode = plain_mode_of(one.agent)
    if isinstance(mode, NoExport):
        raise UsageError(
            f"the way '{one.document['algo']}' acts has no export: {mode.reason}; use load_policy"
        )
    facts = describe(one)
    content = form.to_bytes(ExportedPolicy(one, mode), json.dumps(facts, allow_nan=False))
    with disk_errors(f"write {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with replaced(out) as file:
            file.write(content)
            file.flush()
            checks = check(one, form.run(Path(file.name)), out)
    return {
        "file": str(out),
        "format": name,
        "bytes": len(content),
        **facts,
        "seeds": list(one.seeds),
        "checks": checks,
    }


def describe(one: OneSeed) -> dict[str, Any]:
    """Return the document that an exported file carries."""
    document = one.document
    dataset = document["dataset"]
    return {
        "baq": __version__,
        "algo": document["algo"],
        **document_of(EnvRef.of_document(document)),
        "seed": one.seed,
        "obs_dim": one.spaces.obs_dim,
        "obs_layout": [list(part) for part in one.spaces.obs_layout],
        "action_dim": one.spaces.action_dim,
        "action_low": list(one.spaces.action_low),
        "action_high": list(one.spaces.action_high),
        "action_dtype": one.spaces.action_dtype,
        "gradient_steps": document["gradient_steps"],
        "env_steps": document["env_steps"],
        "dataset": dataset and {"id": dataset["id"], "sha256": dataset["sha256"]},
    }


def check(one: OneSeed, run: Run, out: Path) -> list[dict[str, Any]]:
    """Compare a file with the policy it was made from; return what was found, by group.

    Differences are in halves of an action's range. Raises DataError for one beyond what is
    allowed, and for actions of another shape or type, outside the bounds or not finite.
    """
    # The file's actions are float32, whatever the action space's type: so are those beside them.
    policy = DeployedPolicy(replace(one, spaces=replace(one.spaces, action_dtype="float32")))
    low, high = np.asarray(one.spaces.action_low), np.asarray(one.spaces.action_high)
    half = (high - low) / 2
    rng = np.random.default_rng(0)
    checks: list[dict[str, Any]] = []
    for group in GROUPS:
        obs = _draw(one, rng, group.count, group.spread)
        found = np.stack([run(obs), np.concatenate([run(row[None]) for row in obs])])
        source = np.stack([policy(obs), [policy(row) for row in obs]])
        if found.shape != source.shape or found.dtype != np.float32:
            raise DataError(f"the file for {out} gives actions {found.dtype} {found.shape[1:]}")
        rounding = float(np.max(np.abs(source - _exactly(one, obs)) / half))
        largest = float(np.max(np.abs(found - source) / half))
        allowed = max(TOLERANCE, group.rounding * rounding)
        inside = (low <= found) & (found <= high)
        if not inside.all() or not largest <= allowed:
            raise DataError(
                f"the file for {out} doesn't act as the checkpoint does: its actions differ by up "
                f"to {largest:.2g} of half their range on {group.name} observations, where "
                f"{allowed:.2g} is allowed. Nothing was written."
            )
        checks.append(
            {
                "observations": group.name,
                "count": group.count,
                "standard_deviations": group.spread,
                "largest_difference": largest,
                "allowed": allowed,
            }
        )
    return checks


def _draw(one: OneSeed, rng: np.random.Generator, count: int, spread: float) -> Array:
    """Return observations about the mean of the data, standard normal ones without statistics."""
    mean, std = one.inputs.obs_mean.numpy(), one.inputs.obs_std.numpy()
    normal = rng.normal(size=(count, one.spaces.obs_dim))
    return (mean + std * spread * normal).astype(np.float32)


def _exactly(one: OneSeed, obs: Array) -> Array:
    """Return the actions that the method computes in float64, in the environment's units."""
    agent = copy.deepcopy(one.agent).double()
    mean, std = one.inputs.obs_mean.double(), one.inputs.obs_std.double()
    noise = SeedStream((one.seed,), "act/export")  # no plain policy draws from it
    with torch.inference_mode():
        batch = ((torch.from_numpy(obs) - mean) / std).unsqueeze(0)
        unit = agent.act(batch, noise).squeeze(0).numpy()
    low, high = np.asarray(one.spaces.action_low), np.asarray(one.spaces.action_high)
    return low + (unit + 1.0) / 2 * (high - low)
