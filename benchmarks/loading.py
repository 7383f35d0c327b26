"""How fast a dataset loads: a million Hopper-like transitions in 2,000 episodes.

Three things are timed, each in a process of its own, in turn, `--rounds` times: reading the same
bytes with h5py alone, a cold load (read, checked, hashed, kept in the cache), and a load from the
cache. Prints medians, their spread and ratios, and the memory that a load adds at its peak; exits
1 when a bound misses: cold within 3 times h5py, the cache within 0.5 s, memory within 1.3 times
the float32 arrays.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

EPISODES, STEPS = 2_000, 500
DATASET = "made/million-v0"
KEYS = ("observations", "actions", "rewards", "terminations", "truncations")

MEASURED = {
    "h5py alone": """
import h5py
with h5py.File({file!r}, "r") as file:
    start = time.perf_counter()
    for number in range(len(file)):
        episode = file[f"episode_{{number}}"]
        for key in {keys!r}:
            episode[key][()]
    found["seconds"] = time.perf_counter() - start
""",
    "load": """
import safetensors.torch, platformdirs, minari
from baq_cli.data.minari.read import load_episodes
import baq_cli.data.checks, baq_cli.data.minari.folder
baq_cli.data.minari.folder.local_datasets()
before = resident()
start = time.perf_counter()
episodes = load_episodes({dataset!r})
found["seconds"] = time.perf_counter() - start
from baq_cli.data.episodes import ARRAYS
found["arrays"] = sum(getattr(episodes, name).nbytes for name in ARRAYS)
found["added"] = peak() - before
""",
}
PRELUDE = """
import json, time
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
found = {}
"""


def make_dataset() -> None:
    """Write the dataset into the Minari folder."""
    import gymnasium as gym
    import numpy as np

    from baq_cli.data.minari.write import write_minari
    from baq_cli.data.recording import Recording

    rng = np.random.default_rng(0)
    env = gym.make("Hopper-v5")
    count = EPISODES * STEPS
    ends = np.arange(count) % STEPS == STEPS - 1
    recording = Recording(
        observation_space=env.observation_space,
        action_space=env.action_space,
        observations={"": rng.normal(size=(count + EPISODES, 11))},
        actions=rng.uniform(-1, 1, size=(count, 3)).astype(np.float32),
        rewards=rng.normal(size=count),
        terminated=ends,
        truncated=np.zeros(count, dtype=bool),
        lengths=np.full(EPISODES, STEPS),
        seeds=tuple(range(EPISODES)),
        env_spec=env.spec,
    )
    write_minari(DATASET, recording)


def measure(name: str, file: Path) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    code = PRELUDE + MEASURED[name].format(file=str(file), keys=KEYS, dataset=DATASET)
    done = subprocess.run(
        [sys.executable, "-c", code + "\nprint(json.dumps(found))"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return dict(json.loads(done.stdout))


def main() -> int:
    """Make the dataset in a temporary folder, measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = f"{folder}/datasets"
        os.environ["BAQ_CACHE"] = f"{folder}/cache"
        make_dataset()
        file = Path(folder, "datasets", *DATASET.split("/"), "data", "main_data.hdf5")
        results: dict[str, list[dict[str, float]]] = {"h5py alone": [], "cold": [], "cache": []}
        measure("h5py alone", file)  # from here on the file lies in memory for all alike
        for _ in range(rounds):
            results["h5py alone"].append(measure("h5py alone", file))
            for kept in Path(folder, "cache").rglob("*.*"):
                kept.unlink()
            results["cold"].append(measure("load", file))
            results["cache"].append(measure("load", file))
    return report(results)


def report(results: dict[str, list[dict[str, float]]]) -> int:
    """Print the table; return 1 when a bound misses."""
    for name, runs in results.items():
        seconds = [run["seconds"] for run in runs]
        added = ""
        if "added" in runs[0]:
            worst = max(run["added"] / run["arrays"] for run in runs)
            added = f"   peak memory added: {worst:.2f} × the arrays"
            added += f" ({runs[0]['arrays'] / 2**20:.0f} MiB)"
        print(
            f"{name:>10}: median {statistics.median(seconds):.2f} s "
            f"({min(seconds):.2f}-{max(seconds):.2f}, {len(seconds)} rounds){added}"
        )
    pairs = zip(results["cold"], results["h5py alone"], strict=True)
    ratio = statistics.median(cold["seconds"] / alone["seconds"] for cold, alone in pairs)
    cached = statistics.median(run["seconds"] for run in results["cache"])
    memory = max(run["added"] / run["arrays"] for n in ("cold", "cache") for run in results[n])
    held = [
        (f"cold / h5py alone: {ratio:.2f} (at most 3)", ratio <= 3),
        (f"from the cache: {cached:.2f} s (at most 0.5)", cached <= 0.5),
        (f"peak memory / arrays: {memory:.2f} (at most 1.3)", memory <= 1.3),
    ]
    for text, holds in held:
        print(f"{'holds' if holds else 'MISSES'}  {text}")
    return 0 if all(holds for _, holds in held) else 1


if __name__ == "__main__":
    sys.exit(main())
