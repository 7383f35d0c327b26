"""The formats of logs by their suffixes, and a file of any of them read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from baq_cli.data.logs.d4rl import read_d4rl
from baq_cli.data.logs.delimited import read_csv
from baq_cli.data.logs.logfile import LogFile
from baq_cli.data.logs.mapping import Mapping, TextForm
from baq_cli.data.logs.parquet import read_parquet
from baq_cli.data.logs.robots.robomimic import holds_robomimic, read_robomimic
from baq_cli.data.logs.tables import read_npz
from baq_cli.errors import DataError, UsageError

FORMATS: dict[tuple[str, ...], Callable[[Path, Mapping | None], LogFile]] = {
    (".hdf5", ".h5"): read_d4rl,
    (".npz",): read_npz,
    (".parquet",): read_parquet,
    (".csv", ".tsv"): read_csv,
}
"""Suffixes, and what reads files that have one of them."""


def read_file(path: Path, mapping: Mapping | None) -> LogFile:
    """Read a log of any supported format, told by its suffix.

    Raises UsageError for another suffix, DataError for a file that is missing or damaged.
    """
    if not path.is_file():
        raise DataError("it is not there, or not a file")
    readers = {suffix: reader for kind, reader in FORMATS.items() for suffix in kind}
    reader = readers.get(path.suffix.lower())
    if reader is read_d4rl and holds_robomimic(path, mapping):
        reader = read_robomimic
    if reader is None:
        raise UsageError(
            f"{path}: files of type '{path.suffix.lower()}' can't be imported; known: "
            f"{', '.join(readers)}. Give a table that is written as text the suffix .csv."
        )
    if reader is not read_robomimic and mapping is not None:
        _check_no_robots(path, mapping)
    if reader is not read_csv and mapping is not None:
        for name in TextForm.model_fields:
            if getattr(mapping, name) is not None:
                raise UsageError(f"{path} is no table written as text: leave '{name}' out")
    return reader(path, mapping)


def _check_no_robots(path: Path, mapping: Mapping) -> None:
    for name in ("format", "obs_keys", "mask"):
        if getattr(mapping, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{path} is no log that a robot's tool wrote, which is what {flag} is for: leave "
                "it out"
            )


@contextmanager
def naming(path: Path, several: bool = False) -> Iterator[None]:
    """Put a file's path before what is wrong with it; with `several`, whatever it is."""
    try:
        yield
    except DataError as error:
        said = str(error)
        raise DataError(said if said.startswith(str(path)) else f"{path}: {said}") from error
    except UsageError as error:
        if not several or str(path) in str(error):
            raise
        raise UsageError(f"{path}: {error}") from error
