"""What `baq tune` says of a search: a line a trial, and the tables at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baq_cli.cli.results import print_table, show_comparison
from baq_cli.cli.say import say
from baq_cli.surroundings import in_shell
from baq_cli.units import amount, scores

if TYPE_CHECKING:
    from baq_cli.launch.tuning.trials import Trial

NAMES = {"done": "", "pruned": "pruned", "failed": "failed", "waiting": "not finished"}
ENDINGS = {
    "trials": "all trials that were asked for have run",
    "budget": "the budget is spent",
    "space": "every setting of the space was tried",
}


def in_a_line(trial: Trial) -> str:
    """Return what came of a trial."""
    settings = ", ".join(f"{key}={_short(value)}" for key, value in trial.settings.items())
    if trial.stage == "failed":
        return f"trial {trial.number} ({settings}) failed: {trial.error}"
    score = (
        f"choosing score {scores(trial.scores[-1], grouped=True)[0]}"
        if trial.scores
        else "no score"
    )
    if trial.stage == "pruned":
        return (
            f"trial {trial.number} ({settings}) pruned at {trial.counter:,} {trial.unit}: {score}"
        )
    return f"trial {trial.number} ({settings}): {score}"


def show_search(found: dict[str, Any], out: Path, document: dict[str, Any] | None) -> None:
    """Print a search's trials, what it cost, what was chosen, and its report."""
    print_table([_row(trial, found) for trial in found["trials"]])
    seeds = ", ".join(map(str, found["choosing_seeds"]))
    say(
        f"choosing scores: {found['chosen_by']}, over seeds {seeds}. They chose, and the best of "
        "several looks better than it is: no result"
    )
    cost = found["choosing_env_steps"]
    budget = "" if cost["budget"] is None else f", of a budget of {cost['budget']:,}"
    say(
        f"choosing cost {_steps(cost)}{budget}; {amount(len(found['trials']), 'trial')}, "
        f"{ENDINGS[found['ended_by']]}"
    )
    chosen = found["chosen"]
    settings = " ".join(f"{key}={_short(value)}" for key, value in chosen["settings"].items())
    say(f"chosen: trial {chosen['trial']}: {settings}")
    if document is not None:
        reported = found["reported"]
        say(
            f"\nreported on seeds {', '.join(map(str, reported['seeds']))}, none of which chose "
            f"({_steps(reported['env_steps'])} more):"
        )
        show_comparison(document, out / reported["report"] / "report.html")
    recipe = str(out / chosen["recipe"])
    say(f"\nrecipe: {recipe}")
    say(f"to run it: {in_shell(['baq', 'compare', '--recipe', recipe, '--out', f'{out}-chosen'])}")


def _row(trial: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    cost, seen, failed = trial["env_steps"], trial["choosing_scores"], trial["stage"] == "failed"
    at = "" if trial["unit"] is None else f" at {trial['last_evaluation']:,} {trial['unit']}"
    chosen = found["chosen"]["trial"] == trial["trial"]
    return {
        "trial": str(trial["trial"]),
        **{key: _short(value) for key, value in trial["settings"].items()},
        "choosing score": None if failed or not seen else float(seen[-1]),
        "": "chosen"
        if chosen
        else NAMES[trial["stage"]] + (at if trial["stage"] == "pruned" else ""),
        "trained env_steps": f"{cost['training']:,}",
        "evaluation's": f"{cost['evaluation']:,}",
        "error": trial["error"] if failed else None,
    }


def _steps(cost: dict[str, Any]) -> str:
    return (
        f"{amount(cost['total'], 'environment step')} ({cost['training']:,} of online training, "
        f"{cost['evaluation']:,} of evaluations)"
    )


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, separators=(",", ":"))
