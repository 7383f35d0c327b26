"""What two runs must share before their numbers may stand beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baq_cli.errors import UsageError
from baq_cli.recipes.load import OF_ENVIRONMENT
from baq_cli.recipes.method_files import learns

Protocol = dict[str, Any]
"""Values by the name of a recipe's or manifest's field; a field that doesn't concern a run is
absent."""


def protocol_of(recipe: Mapping[str, Any]) -> Protocol:
    """Return the budgets and the evaluation of a resolved recipe, of the phases it has."""
    algo, evaluation = recipe["algo"], recipe["evaluation"]
    found: Protocol = {"evaluation.episodes": evaluation["episodes"]}
    if learns(algo, "offline"):
        found |= _phase(recipe, evaluation, "gradient_steps")
    if learns(algo, "online"):
        found |= _phase(recipe, evaluation, "env_steps")
    return found


def environment_asked(recipe: Mapping[str, Any]) -> Protocol:
    """Return what a resolved recipe says of the environment, which no method of a task changes."""
    return {key: recipe.get(key) for key in ("env", *OF_ENVIRONMENT)}


def _phase(recipe: Mapping[str, Any], evaluation: Mapping[str, Any], unit: str) -> Protocol:
    every = f"every_{unit}"
    return {unit: recipe[unit], f"evaluation.{every}": evaluation[every]}


def check_same_protocol(task: str, protocols: Mapping[str, Protocol]) -> None:
    """Compare the runs of a task, by their labels.

    Raises UsageError that names the field in which two of them differ.
    """
    seen: dict[str, tuple[str, Any]] = {}
    for label, protocol in protocols.items():
        for field, value in protocol.items():
            first, expected = seen.setdefault(field, (label, value))
            if value != expected:
                raise UsageError(
                    f"{task}: '{first}' and '{label}' can't be compared: {field} is {expected} "
                    f"and {value}. Run them with the same, or report them apart."
                )
