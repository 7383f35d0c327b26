"""How long one action takes: one observation in, one action out, on one thread.

A policy of two hidden layers of 256 (`--checkpoint` for another) is exported to a temporary
folder. Its ways to act take turns, `--rounds` times `--calls` calls each, so that what else the
machine does meets all alike. Prints medians and 99th percentiles in microseconds, of the time that
passed and of the time on the processor: on a shared machine the first is mostly others' work.
Numpy arrays go in and come out in every row; what a simulator or robot takes isn't counted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baq_cli import load_policy
from baq_cli.data.suite import Trained
from baq_cli.deploy.export import export_policy
from baq_cli.deploy.graphs import FORMATS
from baq_cli.engine.checkpoints.restore import load_agent
from baq_cli.nets.streams import SeedStream

WARM_UP = 200
LABELS = {"torchscript": "TorchScript, `module(obs)`", "onnx": "ONNX Runtime, `session.run`"}


def ways_to_act(checkpoint: Path, folder: Path) -> dict[str, Callable[[Any], Any]]:
    """Return the functions to time, each of one observation `[obs_dim]`."""
    agent, inputs, _ = load_agent(checkpoint)
    noise = SeedStream(agent.spec.seeds, "act")
    policy = load_policy(checkpoint)

    def as_evaluation(obs: Any) -> Any:
        with torch.no_grad():
            action = agent.act(inputs.obs(obs[None]).unsqueeze(0), noise)
        return policy.spaces.to_env(action[0, 0].numpy())

    ways: dict[str, Callable[[Any], Any]] = {
        "`load_policy`, `policy(obs)`": policy,
        "the same, as `baq eval` computes it": as_evaluation,
    }
    for name, form in FORMATS.items():
        export_policy(checkpoint, name, folder / name)
        ways[LABELS[name]] = _on_one(form.run(folder / name))
    return ways


def _on_one(run: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a call for one observation of a graph that takes a batch."""
    return lambda obs: run(obs[None])


def measure(act: Callable[[Any], Any], observations: Any) -> Any:
    """Return what each call took, `[calls, 2]` in microseconds: passed, and on the processor."""
    for obs in observations[:WARM_UP]:
        act(obs)
    taken = np.empty((len(observations), 2))
    for number, obs in enumerate(observations):
        busy, start = time.thread_time_ns(), time.perf_counter_ns()
        act(obs)
        taken[number] = time.perf_counter_ns() - start, time.thread_time_ns() - busy
    return taken / 1_000


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Trained("halfcheetah-90k").path)
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ways = ways_to_act(asked.checkpoint, Path(folder))
        obs_dim = load_policy(asked.checkpoint).obs_dim
        observations = np.random.default_rng(0).normal(size=(asked.calls, obs_dim))
        observations = observations.astype(np.float32)
        rounds = [
            {name: measure(act, observations) for name, act in ways.items()}
            for _ in range(asked.rounds)
        ]
    print(f"{load_policy(asked.checkpoint)!r}, PyTorch {torch.__version__}, one thread\n")
    print("| microseconds an action | median | 99th percentile | 99th, on the processor |")
    print("|---|---|---|---|")
    for name in ways:
        taken = np.concatenate([found[name] for found in rounds])
        passed, late = np.percentile(taken[:, 0], [50, 99])
        print(f"| {name} | {passed:.0f} | {late:.0f} | {np.percentile(taken[:, 1], 99):.0f} |")


if __name__ == "__main__":
    main()
