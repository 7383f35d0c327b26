"""What every method computes, as one record: `python tests/fingerprint.py` writes it anew.

Each method trains 60 updates before the hand-over and 60 after it, with one seed and with three,
as it is written and recorded. Of each phase the record keeps a hash of the method's tensors and of
all metrics, which is compared where the machine and PyTorch are those of the record, and each
tensor's mean and size, which are compared anywhere. How a checkpoint keeps the rest (optimisers,
random streams, stores) is free to change: what they do shows in the updates after them.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from baq_cli.agents.registry import METHODS
from baq_cli.engine.experience import sumtree
from baq_cli.engine.phases import run as engine_run
from baq_cli.runs.folder import read_metrics
from support.places import RECORDED
from support.recordings import ID, own_folders
from support.runs import execute, last_tensors, recipe_of, states, stopped_at
from support.small_data import write_steady

RECORD = RECORDED / "fingerprint.json"
UPDATES, SEEDS, RECORD_AFTER, EVERY = 60, (1, 3), 5, 25
SMALL: dict[str, dict[str, Any]] = {
    **{algo: {} for algo in ("awac", "iql", "td3_bc", "bc", "enoto", "sac")},
    "baq": {"behavior_hidden": [8, 8]},
    "cql": {"cql_actions": 2},
    "cal_ql": {"cql_actions": 2},
    "adaptive_bc": {"utd": 3, "distilled_min_rows": 10},
}
"""The methods that there were when the record was made, and what makes them small."""
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "baq-iql": ("baq", {"base": "iql", "online_share": None}),
    "baq-cql": ("baq", {"base": "cql", "priority": "falling"}),
    "cql-sampled": ("cql", {"gradient": "sampled"}),
    "td3_bc-ensemble": ("td3_bc", {"layer_norm": True, "critics": 3}),
}
CASES = {algo: (algo, {}) for algo in SMALL} | VARIANTS


@contextmanager
def prepared() -> Iterator[None]:
    """Give the dataset; diagnostics fall between all checkpoints, and sum trees have levels."""
    from baq_cli.engine.updates import updater

    torch.set_num_threads(1)
    with own_folders(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_run, "METRICS_EVERY", 3)
        patch.setattr(sumtree, "FAN", 3)
        patch.setattr(updater, "RECORD_AFTER", RECORD_AFTER)
        write_steady(ID)
        yield


def of_case(
    name: str, seeds: int, capture: bool, folder: Path, killed: bool = False
) -> dict[str, dict[str, Any]]:
    """Return the prints of a case's phases, by the phase's name.

    `killed`: of runs that died after the first evaluation, and were resumed.
    """
    algo, settings = CASES[name]
    method = METHODS[algo]
    online = {"warmup_env_steps": 4} if method.learns_online else {}
    watched = {"episodes": 1, "background": False}
    watched |= {"every_gradient_steps": EVERY, "every_env_steps": EVERY}
    run: dict[str, Any] = {"seeds": list(range(seeds)), "env": "Steady-v0", "capture": capture}
    run |= {"dataset": ID} if method.learns_offline else {}
    recipe = recipe_of(
        algo, SMALL[algo] | online | settings, **run, evaluation=watched,
        gradient_steps=UPDATES, env_steps=UPDATES,
    )  # fmt: skip
    found, source = {}, None
    for phase in ("offline", "online"):
        if getattr(method, f"learns_{phase}"):
            out = folder / f"{name}-{seeds}-{capture}-{phase}"
            execute(recipe, out, source=source)
            if killed:
                out = stopped_at(out, next(iter(states(out))), out.with_suffix(".killed"))
                execute(recipe, out, resume=True, source=source)
            found[phase], source = of_run(out), out
    return found


def of_run(run: Path) -> dict[str, Any]:
    """Return what a run's agent and metrics are in the end, as a hash and as a few numbers."""
    digest, numbers = hashlib.sha256(), {}
    for name, tensor in sorted(last_tensors(run).items()):
        if not name.startswith("agent/"):
            continue
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        if tensor.is_floating_point() and tensor.numel():
            value = tensor.double().nan_to_num(-1.0)
            size = value.square().mean().sqrt()
            numbers[name.removeprefix("agent/")] = [
                float(f"{number:.6g}") for number in (value.mean(), size)
            ]
    for row in read_metrics(run):
        kept = {key: value for key, value in row.items() if key not in ("wall_seconds", "source")}
        digest.update(json.dumps(kept, sort_keys=True).encode())
    return {"sha256": digest.hexdigest(), "tensors": numbers}


def machine() -> dict[str, str]:
    """Return what the last bits of a sum depend on."""
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    found = {"cpu": models[0] if models else platform.processor(), "torch": torch.__version__}
    return found | {"capability": torch.backends.cpu.get_cpu_capability()}


def main() -> None:
    """Write the record of what is computed now."""
    prints: dict[str, Any] = {}
    with prepared(), tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            for seeds in SEEDS:
                plain = of_case(name, seeds, False, Path(folder))
                recorded = of_case(name, seeds, True, Path(folder))
                assert plain == recorded, f"{name}: recorded updates differ"
                prints[f"{name}-{seeds}"] = plain
                print(name, seeds, file=sys.stderr)
    RECORD.write_text(json.dumps({"machine": machine(), "prints": prints}, indent=1) + "\n")


if __name__ == "__main__":
    main()
