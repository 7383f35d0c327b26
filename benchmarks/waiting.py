"""Where people wait, as ratios within one run: `python benchmarks/waiting.py [PART ...]`.

evaluation  environment steps a second of an evaluation, over the bare simulator stepped in a loop
            through the same episodes
collection  the same of the collection of a reference dataset
threads     updates a second by how threads wait for each other, over PyTorch's own way, on the
            cores as they are and beside a process that keeps one busy
start       'baq pretrain' to its first update, over importing PyTorch

What is compared takes turns, so that a machine's drift meets all alike; medians are printed with
their range, of the time on the clock and of the process's own CPU time. `--rounds N` sets how many
turns, `--small` makes each short.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from baq_cli.machine import wait_without_holding_cores

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
WAYS = {
    "as PyTorch has it": {"GOMP_SPINCOUNT": "300000"},
    "never spinning": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"},
    "spinning 1 000 times": {"GOMP_SPINCOUNT": "1000"},
    "spinning 10 000 times": {"GOMP_SPINCOUNT": "10000"},
    "one thread": {},
}
Pair = tuple[float, float]
"""Seconds on the clock, and of the process."""


def timed(act: Callable[[], object]) -> Pair:
    """Return the seconds of a call."""
    wall, own = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - own


def spread(values: Sequence[float]) -> str:
    """Return a median with its range."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}–{max(values):.2f}]"


def show(title: str, of_bare: Sequence[Pair], of_ours: Sequence[Pair]) -> None:
    """Print how fast ours was over the bare simulator, pair by pair."""
    pairs = list(zip(of_bare, of_ours, strict=True))
    clock = [bare[0] / ours[0] for bare, ours in pairs]
    own = [bare[1] / ours[1] for bare, ours in pairs]
    print(f"{title}: {spread(clock)} on the clock, {spread(own)} of CPU time", flush=True)


# -- evaluation, collection


def bare(env_id: str, episodes: Sequence[tuple[int, Any]]) -> None:
    """Step an environment through episodes that are known: start seeds, and actions."""
    import gymnasium as gym

    env = gym.make(env_id)
    for seed, actions in episodes:
        env.reset(seed=seed)
        for action in actions:
            env.step(action)
    env.close()


def evaluation(rounds: int, small: bool) -> None:
    """Play three seeds' episodes of Hopper, a policy of 256 × 256 units."""
    import numpy as np
    import torch

    from baq_cli.agents.registry import make_agent, method_configs
    from baq_cli.data.suite import Trained
    from baq_cli.engine.checkpoints.restore import load_agent
    from baq_cli.engine.evaluation.acting import Player
    from baq_cli.engine.evaluation.evaluator import Evaluator, env_seed
    from baq_cli.recipes.load import reopen

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    agent, inputs, saved = load_agent(Trained("hopper-140k").path)
    method = reopen(saved.document["recipe"], method_configs()).method
    seeds, count = (0, 1, 2), 10 if small else 45
    spec = replace(agent.spec, seeds=seeds)
    three = make_agent(saved.document["algo"], method, spec, saved.document["phase"])
    for name, tensor in three.state_dict().items():
        one = agent.state_dict()[name]
        if not one.is_meta:
            tensor.copy_(one.expand_as(tensor))
    evaluator = Evaluator("Hopper-v5", seeds, count)
    played: dict[tuple[int, int], list[Any]] = {}
    player = Player(three, inputs, evaluator.width, "act/0")

    def act(obs: Any, episode: Any) -> Any:
        action = player(obs, episode)
        told = evaluator.pool.spaces.to_env(action)
        for row in np.flatnonzero(episode < count):
            played.setdefault((row // evaluator.width, int(episode[row])), []).append(told[row])
        return action

    _, lengths = evaluator.play(act, 0)
    rows, last = len(seeds) * evaluator.width, 0
    for seed in lengths:  # a row's episodes follow each other
        last = max(
            last, *(int(seed[row :: evaluator.width].sum()) for row in range(evaluator.width))
        )
    episodes = [
        (env_seed(seeds[seed], "eval", 0, number), actions)
        for (seed, number), actions in played.items()
    ]
    of_bare, of_ours = [], []
    for _ in range(rounds):
        of_bare.append(timed(lambda: bare("Hopper-v5", episodes)))
        of_ours.append(timed(lambda: evaluator.evaluate(three, inputs, 0)))
    steps = sum(len(actions) for _, actions in episodes)
    show(f"evaluation, Hopper, {len(episodes)} episodes, {steps:,} steps", of_bare, of_ours)
    share = steps / (rows * last)
    print(f"evaluation: {share:.2f} of the steps that all {rows} environments would make until the "
          "last is done", flush=True)  # fmt: skip


def collection(rounds: int, small: bool) -> None:
    """Collect Hopper's medium set, or a part of it."""
    from baq_cli.data.suite import SUITE
    from baq_cli.engine.collection.rollouts import roll_out
    from baq_cli.envs.ref import EnvChoice
    from baq_cli.runs.events import ignore

    suite = SUITE["baq/hopper/medium-v0"]
    steps = 10_000 if small else suite.transitions

    def collect() -> Any:
        behaviors = suite.behaviors, EnvChoice(suite.env_id), steps, suite.seed
        return roll_out(*behaviors, ignore, suite.deterministic, suite.threads)[0]

    found = collect()
    ends = found.lengths.cumsum()
    actions = [found.actions[end - n : end] for end, n in zip(ends, found.lengths, strict=True)]
    episodes = list(zip(found.seeds, actions, strict=True))
    of_bare, of_ours = [], []
    for _ in range(rounds):
        of_bare.append(timed(lambda: bare(suite.env_id, episodes)))
        of_ours.append(timed(collect))
    show(f"collection, Hopper medium, {steps:,} steps", of_bare, of_ours)


# -- threads


UPDATES = """
import sys, time
import torch
from baq_cli.bench.updates import Case, Sizes, recipe_of, spec_of
from baq_cli.engine.updates.device import prepare
from baq_cli.engine.updates.synthetic import synthetic_updater
device = prepare("cpu", int(sys.argv[1]))
case = Case("iql")
updater = synthetic_updater(recipe_of(case, Sizes()), spec_of(case, Sizes(), device))
for line in sys.stdin:
    wall, own = time.perf_counter(), time.process_time()
    for _ in range(int(line)):
        updater.step()
    print(time.perf_counter() - wall, time.process_time() - own, flush=True)
"""


def threads(rounds: int, small: bool) -> None:
    """Time IQL's updates on two threads, by how these wait, and on one."""
    updates = 10 if small else 100
    children = {way: _child(way) for way in WAYS}
    for busy in (False, True):
        found: dict[str, list[Pair]] = {way: [] for way in WAYS}
        with _busy() if busy else _quiet():
            for turn in range(rounds + 1):
                for way, child in children.items():
                    pair = _ask(child, updates if turn else 2)
                    if turn:
                        found[way].append(pair)
        title = "beside a busy process" if busy else "cores as they are"
        first = found["as PyTorch has it"]
        for way, pairs in found.items():
            clock = [one[0] / other[0] for one, other in zip(first, pairs, strict=True)]
            cpu = [own / wall for wall, own in pairs]
            print(f"threads, {title}, {way}: {spread(clock)} times as fast, "
                  f"{spread(cpu)} cores' time", flush=True)  # fmt: skip
    for child in children.values():
        assert child.stdin is not None
        child.stdin.close()
        child.wait()


def _child(way: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k not in WAITING}
    environment.pop("OMP_NUM_THREADS", None)
    environment.pop("MKL_NUM_THREADS", None)
    count = "1" if way == "one thread" else "2"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    words = [sys.executable, "-c", UPDATES, count]
    return subprocess.Popen(words, env=environment | WAYS[way], text=True, **pipes)


def _ask(child: subprocess.Popen[str], updates: int) -> Pair:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(f"{updates}\n")
    child.stdin.flush()
    wall, own = map(float, child.stdout.readline().split())
    return wall, own


@contextmanager
def _busy() -> Iterator[None]:
    """Keep one core busy with another process."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


@contextmanager
def _quiet() -> Iterator[None]:
    yield


# -- start


CLOCK = "import time; wall, own = time.perf_counter(), time.process_time()\n"
SAY = "print(time.perf_counter() - wall, time.process_time() - own, flush=True)"
TORCH = f"{CLOCK}import torch\n{SAY}"
COUNTER = f"""
import torch
from torch.utils.flop_counter import FlopCounterMode
{CLOCK}
with FlopCounterMode(display=False):
    torch.zeros(1).add_(1)
{SAY}
"""
FIRST_UPDATE = f"""
{CLOCK}
import os, sys
import baq_cli.engine.phases.commands as commands
from baq_cli.cli.main import main

def at_first_update(*run):
    {SAY}
    os._exit(0)

commands.pretrain = at_first_update
main()
"""
DATASET = "baq/pendulum/random-v0"


def start(rounds: int, small: bool) -> None:
    """Start a training of IQL on Pendulum, until its first update would be made."""
    build = [sys.executable, "-m", "baq_cli", "data", "suite", "build", DATASET]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found: dict[str, list[Pair]] = {"torch": [], "counter": [], "first": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            out = str(Path(folder) / str(number))
            words = ["pretrain", "--algo", "iql", "--dataset", DATASET, "--out", out]
            found["torch"].append(_python(TORCH))
            found["counter"].append(_python(COUNTER))
            found["first"].append(_python(FIRST_UPDATE, *words))
    for which, name in enumerate(("on the clock", "of CPU time")):
        torch, counter, first = ([pair[which] for pair in pairs] for pairs in found.values())
        over = [f / t for f, t in zip(first, torch, strict=True)]
        without = [(f + c) / f for f, c in zip(first, counter, strict=True)]
        print(f"start to the first update, {name}: {spread(first)} s, {spread(over)} times what "
              f"importing PyTorch takes; with PyTorch's counter of operations {spread(without)} "
              "times as long", flush=True)  # fmt: skip


def _python(code: str, *words: str) -> Pair:
    """Return the seconds that a program prints, in a process of its own."""
    said = subprocess.run(
        [sys.executable, "-c", code, *words],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout.split()
    return float(said[0]), float(said[1])


PARTS = {f.__name__: f for f in (evaluation, collection, threads, start)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="short turns")
    arguments = parser.parse_args()
    wait_without_holding_cores()  # as the command does
    for name in arguments.parts or PARTS:
        PARTS[name](arguments.rounds, arguments.small)


if __name__ == "__main__":
    main()
