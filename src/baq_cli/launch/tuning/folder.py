"""A search's folder: which search it is, and its trials; read without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from baq_cli.errors import DataError
from baq_cli.recipes.schema import MOST_TRIALS
from baq_cli.runs.checked import Checked, check_content
from baq_cli.runs.files import disk_errors, json_bytes, read_json, replace_file
from baq_cli.runs.folder import SEARCH

TRIALS = "trials"


class _SearchFields(Checked):
    search: dict[str, Any]
    trials: list[dict[str, Any]] = Field(max_length=2 * MOST_TRIALS)


def read_search(out: Path) -> dict[str, Any]:
    """Return `search`, which search a folder holds, and `trials`, the settings of each, in order.

    Raises DataError where it holds none, or a damaged one.
    """
    if not (out / SEARCH).exists():
        raise DataError(f"{out} holds no search: expected the --out of a 'baq tune'")
    content = read_json(out / SEARCH)
    check_content(_SearchFields, content, out / SEARCH)
    return content


def write_search(out: Path, search: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> None:
    """Note which search a folder holds, and the settings of its trials."""
    with disk_errors(f"keep the search in {out}"):
        out.mkdir(parents=True, exist_ok=True)
        content = {"search": dict(search), "trials": [dict(settings) for settings in trials]}
        replace_file(out / SEARCH, json_bytes(content))


def trial_folder(out: Path, number: int) -> Path:
    """Return the folder of a trial's cell."""
    return out / TRIALS / f"{number:04d}"


def begun_trials(out: Path) -> list[Path]:
    """Return the folders of the trials that a search has begun, in order.

    Raises DataError as `read_search` does.
    """
    numbers = range(len(read_search(out)["trials"]))
    folders = [trial_folder(out, number) for number in numbers]
    return [folder for folder in folders if (folder / "cell.json").exists()]
