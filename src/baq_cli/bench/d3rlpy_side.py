"""d3rlpy's own update, timed on request. Runs in d3rlpy's own virtual environment, as a script.

It reads one request a line, `{"seconds": …, "what": "update" | "draw"}`, and answers with calls per
second. The sizes come as the script's argument, as JSON.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import structlog
import torch

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))

from d3rlpy import algos  # noqa: E402  (the logger must be quiet before)
from d3rlpy.dataset import MDPDataset  # noqa: E402
from d3rlpy.models import VectorEncoderFactory  # noqa: E402

CONFIGS = {
    "iql": algos.IQLConfig,
    "awac": algos.AWACConfig,
    "td3_bc": algos.TD3PlusBCConfig,
    "cql": algos.CQLConfig,
}
EPISODE = 1000


def make_dataset(sizes: dict[str, Any]) -> Any:
    rng = np.random.default_rng(0)
    rows = sizes["rows"]
    timeouts = np.zeros(rows)
    timeouts[EPISODE - 1 :: EPISODE] = 1
    timeouts[-1] = 1
    return MDPDataset(
        observations=rng.uniform(-1, 1, (rows, sizes["obs_dim"])).astype(np.float32),
        actions=rng.uniform(-1, 1, (rows, sizes["action_dim"])).astype(np.float32),
        rewards=rng.uniform(-1, 1, rows).astype(np.float32),
        terminals=np.zeros(rows),
        timeouts=timeouts,
    )


def make_algo(sizes: dict[str, Any], dataset: Any) -> Any:
    config = CONFIGS[sizes["algo"]]
    encoder = VectorEncoderFactory(hidden_units=list(sizes["hidden"]))
    names = [name for name in vars(config()) if name.endswith("encoder_factory")]
    algo = config(batch_size=sizes["batch"], **dict.fromkeys(names, encoder)).create(device="cpu:0")
    algo.build_with_dataset(dataset)
    return algo


def calls_per_second(act: Callable[[], Any], seconds: float) -> float:
    act()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        act()
        count += 1
    return count / (time.perf_counter() - started)


def main() -> None:
    sizes = json.loads(sys.argv[1])
    torch.set_num_threads(sizes["threads"])
    dataset = make_dataset(sizes)
    algo = make_algo(sizes, dataset)
    batch = dataset.sample_transition_batch(sizes["batch"])
    acts = {
        "update": lambda: algo.update(batch),
        "draw": lambda: dataset.sample_transition_batch(sizes["batch"]),
    }
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(calls_per_second(acts[request["what"]], request["seconds"])), flush=True)


if __name__ == "__main__":
    main()
