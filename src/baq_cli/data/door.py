"""The one door by which datasets come in: checked as `baq data check` does, then saved.

Imports, arrays, collections, reference datasets and downloads all pass it.
"""

from __future__ import annotations

from baq_cli.data.checks import content_findings, environment_findings, refuse
from baq_cli.data.episodes import Episodes, Finding
from baq_cli.data.minari.write import write_minari
from baq_cli.data.recording import Recording
from baq_cli.errors import DataError, EnvironmentMismatch


def every_finding(episodes: Episodes, env_id: str | None) -> list[Finding]:
    """Return everything that the checks find, errors and warnings.

    Without `env_id` the dataset's own environment is checked against, where it names one; that it
    can't be made here is a warning then.
    Raises EnvironmentMismatch when the named one can't be made.
    """
    found = content_findings(episodes)
    env = env_id or episodes.origin.env_id
    if env is None:
        return found
    try:
        return [*found, *environment_findings(episodes, env)]
    except EnvironmentMismatch as error:
        if env_id is not None:
            raise
        return [*found, Finding("warning", "environment", str(error))]


def checked(episodes: Episodes, env_id: str | None = None) -> Episodes:
    """Return episodes with what the checks warn of; see `every_finding`.

    Raises DataError, with every error, when there is one.
    """
    return refuse(episodes, every_finding(episodes, env_id))


def save(
    dataset_id: str, recording: Recording, env_id: str | None = None, must_be_new: bool = True
) -> Episodes:
    """Save a recording as a Minari dataset, whole or not at all; return it as training sees it.

    Raises DataError for one that has errors, and when it can't be written; see `write_minari`.
    """
    try:
        episodes = checked(recording.episodes(dataset_id), env_id)
    except DataError as error:
        raise DataError(f"{error} Nothing was saved.") from error
    write_minari(dataset_id, recording, must_be_new)
    return episodes
