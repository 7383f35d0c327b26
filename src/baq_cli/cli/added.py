"""What is shown of a dataset that was added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from baq_cli.cli.say import say
from baq_cli.units import amount, scores

if TYPE_CHECKING:
    from baq_cli.data.episodes import Episodes


def warn(episodes: Episodes) -> None:
    """Say on stderr what the checks of a new dataset warn of."""
    for finding in episodes.findings:
        say(f"warning: {finding.text}", err=True)


def show_added(id: str, episodes: Episodes, notes: Sequence[str], json: bool, **more: Any) -> None:
    """Print a new dataset's size and mean return in a line; or as JSON, with `more` facts."""
    from baq_cli.cli.results import print_json

    facts: dict[str, Any] = {
        "dataset": id,
        "episodes": len(episodes.lengths),
        "env_steps": len(episodes),
        "notes": list(notes),
        "return_mean": float(episodes.returns.mean()),
        "sha256": episodes.content_hash,
        "warnings": [finding.text for finding in episodes.findings],
    }
    if json:
        print_json(facts | more)
        return
    say(
        f"{id}: {amount(facts['episodes'], 'episode')}, {amount(facts['env_steps'], 'step')}, "
        f"mean return {scores(facts['return_mean'])[0]}"
    )
