"""Fetching public datasets into the Minari folder."""

from __future__ import annotations

import logging
from pathlib import Path

from baq_cli.data.door import checked
from baq_cli.data.episodes import Episodes
from baq_cli.data.minari.commit import describe_namespace, elsewhere, move
from baq_cli.data.minari.folder import check_new_id, dataset_path, open_minari, quiet
from baq_cli.data.minari.read import read_episodes
from baq_cli.errors import BaqError, DataError
from baq_cli.surroundings import MINARI, NO_ROOM, refused


def download(dataset_id: str) -> Episodes:
    """Fetch a public dataset into the Minari folder, checked, whole or not at all.

    Raises DataError when it can't be reached, doesn't exist, or has errors.
    """
    check_new_id(dataset_id)
    target = dataset_path(dataset_id)
    try:
        with elsewhere() as folder:
            _fetch(dataset_id, target)
            episodes = _checked(dataset_id)
            move(folder / dataset_id, target)
    except OSError as error:
        raise refused(f"save dataset '{dataset_id}' in {target.parent}", error, MINARI) from error
    describe_namespace(dataset_id)
    return episodes


def _checked(dataset_id: str) -> Episodes:
    try:
        return checked(read_episodes(open_minari(dataset_id)))
    except BaqError as error:
        raise DataError(
            f"'{dataset_id}' was fetched and not kept, because nothing here could train on it: "
            f"{error} If you want it all the same, 'minari download {dataset_id}' keeps it."
        ) from error


def _fetch(dataset_id: str, target: Path) -> None:
    """Let Minari download a dataset into what is its folder now."""
    import minari

    logging.disable(logging.WARNING)  # each of its retries would be reported
    try:
        with quiet():
            minari.download_dataset(dataset_id)
    except Exception as error:  # whatever the network library of the day raises
        if isinstance(error, OSError) and (error.filename or error.errno in NO_ROOM):
            raise  # of the disk, not of the network
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"cannot download '{dataset_id}': {reason}. Where there is a network, run "
            f"'minari download {dataset_id}' and copy the folder "
            f"~/.minari/datasets/{dataset_id} to {target} here; "
            "'minari list remote' shows what exists."
        ) from error
    finally:
        logging.disable(logging.NOTSET)
