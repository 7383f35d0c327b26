"""Searches whose trials are played by a function of their settings, on disk as cells leave them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from baq_cli.errors import ExitStatus, Interrupted
from baq_cli.launch.cells import Cell
from baq_cli.launch.drive import CellFailure
from baq_cli.launch.journal import write_state
from baq_cli.launch.tuning.plan import Plan, plan_search
from baq_cli.launch.tuning.search import Search
from baq_cli.launch.tuning.trials import Trial
from baq_cli.runs.log import LOGS

EVERY, TOTAL, LENGTH = 10, 50, 7
"""Environment steps between two evaluations, of a trial, and of an episode."""
OFFLINE = 2
"""Evaluations of a pre-training, of five episodes a seed each."""
RECIPE: dict[str, Any] = {
    "algo": "iql",
    "dataset": "made/pendulum-v0",
    "seeds": [0, 1],
    "gradient_steps": 100,
    "env_steps": TOTAL,
    "evaluation": {"episodes": 5, "every_env_steps": EVERY, "every_gradient_steps": 50},
}
SPACE = {"iql.expectile": "0.5..0.9", "iql.beta": "1..10:log", "iql.critics": [2, 4]}
COST = 2 * TOTAL + (OFFLINE + 1 + TOTAL // EVERY) * 2 * 5 * LENGTH
"""What a trial costs that isn't pruned."""


def plan_in(out: Path, **asked: Any) -> Plan:
    """Return a small search."""
    said = {"search": SPACE, "report_seeds": [7], "trials": 9, "at_once": 3} | asked
    return plan_search(RECIPE, {}, said, out, "baq tune")


def score(cell: Cell, seed: int, done: int) -> float:
    """Return what a trial's policy is worth: best at expectile 0.7, by steps that differ."""
    section = cell.recipe["iql"]
    bent = (section["beta"] * 7919 + seed * 31 + done * section["critics"]) % 1.0
    return done * (1 - abs(section["expectile"] - 0.7)) + 5 * bent


def play(cell: Cell, stops_after: int | None = None) -> None:
    """Do what a worker does, and say so; at most so many evaluations, then be killed."""
    cell.save()
    write_state(cell.folder, "running")
    offline = [row(cell, seed, "offline", 50 * i, 0) for i in (1, 2) for seed in (0, 1)]
    write_rows(cell.folder / "offline", offline)
    rows = list(offline)
    for count, done in enumerate(range(0, TOTAL + 1, EVERY)):
        if count == stops_after:
            return
        rows += [row(cell, seed, "online", 100, done) for seed in (0, 1)]
        write_rows(cell.folder / "online", rows)
        if cell.is_pruned():
            write_state(cell.folder, "pruned", status=ExitStatus.DONE)
            return
    write_state(cell.folder, "done", status=ExitStatus.DONE)


def row(cell: Cell, seed: int, phase: str, gradient_steps: int, env_steps: int) -> dict[str, Any]:
    return {
        "phase": phase,
        "seed": seed,
        "gradient_steps": gradient_steps,
        "env_steps": env_steps,
        "episodes": 0,
        "return_mean": score(cell, seed, env_steps),
        "return_std": 0.0,
        "length_env_steps": float(LENGTH),
        "evaluation_episodes": 5,
        "wall_seconds": 0.0,
        "source": "evaluation",
    }


def write_rows(run: Path, rows: Sequence[dict[str, Any]]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    with (run / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, LOGS["metrics"])
        writer.writeheader()
        writer.writerows(rows)


class Killed(Interrupted):
    """The search was killed."""


def searched(
    plan: Plan,
    most: int = COST,
    evaluations: int | None = None,
    order: Callable[[Sequence[Cell]], Sequence[Cell]] = list,
) -> tuple[list[Trial], Search]:
    """Run a search until it ends, or is killed after so many evaluations of its trials.

    Cells that run side by side are played in `order`.
    """
    search, left = Search(plan, lambda cell: cell, most), evaluations

    def run(cells: Sequence[Cell]) -> dict[str, CellFailure]:
        nonlocal left
        for cell in order(cells):
            if left is not None and left <= TOTAL // EVERY:
                play(cell, left)
                raise Killed("killed")
            play(cell)
            left = None if left is None else left - TOTAL // EVERY - 1
        return {}

    return search.run(run, lambda trial: None), search
