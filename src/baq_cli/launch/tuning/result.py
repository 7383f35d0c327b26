"""What a search leaves beside its trials: `tune.json`, and the chosen setting as a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from baq_cli import __version__
from baq_cli.launch.cells import Cell
from baq_cli.launch.tuning.plan import Plan
from baq_cli.launch.tuning.search import Search
from baq_cli.launch.tuning.trials import Cost, Trial, cost_of
from baq_cli.recipes.load import COMPARE, to_yaml
from baq_cli.runs.files import disk_errors, replace_file
from baq_cli.runs.provenance import now

RESULT, CHOSEN = "tune.json", "chosen.yaml"
STATISTIC = {
    "online": "mean return of the online phase's evaluations",
    "final": "return of the last online evaluation",
    "pretraining": "return of pre-training's last evaluation",
    "offline": "discounted return of the pre-trained policy, estimated from the dataset",
}
"""What a trial is chosen by, in words."""


def result_of(
    search: Search, chosen: Trial, reported: tuple[Cell, dict[str, Any]] | None
) -> dict[str, Any]:
    """Return what `tune.json` says.

    `reported` is the cell of the chosen setting, and its report's document. A trial's scores are
    called choosing scores, and no score that is reported is on one of the seeds that chose.
    """
    plan = search.plan
    return {
        "is": "search",
        "made": {"baq": __version__, "at": now()},
        "command": plan.command,
        "method": plan.algo,
        "dataset": plan.dataset,
        "chosen_from": plan.asked.chosen_from,
        "chosen_by": STATISTIC[plan.asked.chosen_from],
        "search": {key: part.as_text() for key, part in plan.space.items()},
        "choosing_seeds": list(plan.seeds),
        "trials": [_trial(trial) for trial in search.trials()],
        "ended_by": search.ending,
        "choosing_env_steps": search.cost.as_dict() | {"budget": plan.asked.env_steps_budget},
        "chosen": {"trial": chosen.number, "settings": chosen.settings, "recipe": CHOSEN},
        "reported": None if reported is None else _reported(plan, chosen, *reported),
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "settings": trial.settings,
        "stage": trial.stage,
        "choosing_score": trial.score,
        "choosing_scores": list(trial.scores),
        "last_evaluation": trial.counter,
        "unit": trial.unit,
        "env_steps": trial.cost.as_dict(),
        "error": trial.error,
    }


def _reported(plan: Plan, chosen: Trial, cell: Cell, document: dict[str, Any]) -> dict[str, Any]:
    (task,) = document["tasks"]
    cost: Cost = cost_of(cell)
    return {
        "seeds": list(plan.asked.report_seeds),
        "unit": task["unit"],
        "statistics": task["methods"][cell.method]["statistics"],
        "env_steps": cost.as_dict(),
        "report": plan.report_name(chosen.number, chosen.settings),
    }


def write_result(plan: Plan, found: dict[str, Any], chosen: Trial) -> Path:
    """Write `tune.json` and the chosen setting's recipe; return the recipe's path."""
    file = plan.out / CHOSEN
    with disk_errors(f"write what the search in {plan.out} found"):
        replace_file(plan.out / RESULT, json.dumps(found, allow_nan=False, indent=1).encode())
        replace_file(file, _recipe(plan, chosen).encode())
    return file


def _recipe(plan: Plan, chosen: Trial) -> str:
    """Return the chosen setting as YAML that `pretrain`, `finetune` and `compare` take."""
    matrix = yaml.safe_dump({COMPARE: {"algos": [plan.algo]}}, default_flow_style=None)
    said = (
        f"# trial {chosen.number} of that search, chosen by the {STATISTIC[plan.asked.chosen_from]}"
        f" on seeds {', '.join(map(str, plan.seeds))}:\n# its scores are on other seeds\n"
    )
    command, _, body = to_yaml(plan.chosen(chosen.settings), plan.command).partition("\n")
    return f"{command}\n{said}{matrix}{body}"
