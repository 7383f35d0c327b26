"""d3rlpy's own update, timed on request. Runs in d3rlpy's own virtual environment, as a script.

It reads one request a line, `{"seconds": …, "what": "update" | "training"}`, and answers with
updates per second: of `update` on one batch, or of d3rlpy's own training loop (draw, update,
bookkeeping), as its users run it, without files and a progress bar. The sizes come as the script's
argument, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from typing import Any

import numpy as np
import structlog
import torch

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))

from d3rlpy import algos  # noqa: E402  (the logger must be quiet before)
from d3rlpy.dataset import MDPDataset  # noqa: E402
from d3rlpy.logging import NoopAdapterFactory  # noqa: E402
from d3rlpy.models import VectorEncoderFactory  # noqa: E402

CONFIGS = {
    "iql": algos.IQLConfig,
    "awac": algos.AWACConfig,
    "td3_bc": algos.TD3PlusBCConfig,
    "cql": algos.CQLConfig,
}
EPISODE = 1000
EPOCH_STEPS = 10_000  # d3rlpy's default


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
    on_card = sizes["device"] == "cuda"
    algo = config(
        batch_size=sizes["batch"],
        compile_graph=on_card,  # its fastest way there: compiled, and replayed as CUDA graphs
        **dict.fromkeys(names, encoder),
    ).create(device="cuda:0" if on_card else "cpu:0")
    algo.build_with_dataset(dataset)
    return algo


class Over(Exception):
    """Ends d3rlpy's loop when a window is over."""


def updates_per_second(algo: Any, batch: Any, seconds: float) -> float:
    algo.update(batch)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        algo.update(batch)
        count += 1
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return count / (time.perf_counter() - started)


def training_steps_per_second(algo: Any, dataset: Any, seconds: float) -> float:
    started, last = 0.0, 0

    def stop(_: Any, epoch: int, step: int) -> None:
        nonlocal started, last
        last = step
        started = started or time.perf_counter()
        if time.perf_counter() - started >= seconds:
            raise Over

    with contextlib.suppress(Over):
        algo.fit(
            dataset,
            n_steps=10**9,
            n_steps_per_epoch=EPOCH_STEPS,
            logger_adapter=NoopAdapterFactory(),
            show_progress=False,
            callback=stop,
        )
    return (last - 1) / (time.perf_counter() - started)


def main() -> None:
    sizes = json.loads(sys.argv[1])
    torch.set_num_threads(sizes["threads"])
    dataset = make_dataset(sizes)
    algo = make_algo(sizes, dataset)
    batch = dataset.sample_transition_batch(sizes["batch"])
    for line in sys.stdin:
        request = json.loads(line)
        if request["what"] == "update":
            rate = updates_per_second(algo, batch, request["seconds"])
        else:
            rate = training_steps_per_second(algo, dataset, request["seconds"])
        print(json.dumps(rate), flush=True)


if __name__ == "__main__":
    main()
