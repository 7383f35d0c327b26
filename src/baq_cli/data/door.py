"""The one door by which datasets come in: checked as `baq data check` does, then saved.

Imports, arrays, collections, reference datasets and downloads all pass it.
"""

from __future__ import annotations

from baq_cli.data.checks import content_findings, refuse
from baq_cli.data.env_checks import environment_findings
from baq_cli.data.episodes import Episodes, Finding
from baq_cli.data.minari.write import write_minari
from baq_cli.data.recording import Recording
from baq_cli.envs.making import as_registered
from baq_cli.envs.ref import EnvChoice, check_inherited
from baq_cli.errors import DataError, EnvironmentMismatch

ITS_OWN = EnvChoice()


def every_finding(episodes: Episodes, choice: EnvChoice | None = ITS_OWN) -> list[Finding]:
    """Return everything that the checks find, errors and warnings.

    Without an id in `choice`, they are checked against the environment that a training on them
    would have, where they name one; that it can't be made here is a warning then. With None for
    `choice` no environment is made.
    Raises EnvironmentMismatch when the chosen one can't be made.
    """
    found = content_findings(episodes)
    if choice is None:
        return found
    env = choice.over(episodes.origin.eval_env or episodes.origin.env)
    if env is None:
        return found
    try:
        if choice.id is None:
            data = f"the dataset '{episodes.dataset_id}'"
            check_inherited(as_registered(env), data, choice.args)
        return [*found, *environment_findings(episodes, env)]
    except EnvironmentMismatch as error:
        if choice != ITS_OWN:
            raise
        return [*found, Finding("warning", "environment", str(error))]


def checked(episodes: Episodes, choice: EnvChoice | None = ITS_OWN) -> Episodes:
    """Return episodes with what the checks warn of; see `every_finding`.

    Raises DataError, with every error, when there is one.
    """
    return refuse(episodes, every_finding(episodes, choice))


def save(
    dataset_id: str,
    recording: Recording,
    choice: EnvChoice | None = ITS_OWN,
    must_be_new: bool = True,
) -> Episodes:
    """Save a recording as a Minari dataset, whole or not at all; return it as training sees it.

    Raises DataError for one that has errors, and when it can't be written; see `write_minari`.
    """
    try:
        episodes = checked(recording.episodes(dataset_id), choice)
    except DataError as error:
        raise DataError(f"{error} Nothing was saved.") from error
    write_minari(dataset_id, recording, must_be_new)
    return episodes
