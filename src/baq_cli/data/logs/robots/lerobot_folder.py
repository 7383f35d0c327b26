"""The folder of a LeRobot dataset: what its meta/ says, and which tables hold its rows.

Format: huggingface/lerobot, `datasets/utils.py` and `datasets/dataset_metadata.py`, versions 2.0,
2.1 (a table an episode) and 3.0 (many episodes a table). Templates of paths in its info.json are
not followed: the tables below data/ are listed, and held against meta/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from baq_cli.data.logs.files import natural
from baq_cli.data.logs.mapping import Mapping
from baq_cli.data.logs.parquet import read_columns
from baq_cli.errors import DataError, UsageError, clipped, listed
from baq_cli.plain_files import MOST_DOCUMENT
from baq_cli.untrusted import parse_json, read_text

INFO = "meta/info.json"
VERSIONS = ("2.0", "2.1", "3.0")
MOST_FEATURES, MOST_TASKS = 10_000, 20
EPISODE = "episode_index"


class Feature(BaseModel):
    """What info.json says of a column: its type (`video` and `image` are pictures) and shape."""

    dtype: str
    shape: list[int] = Field(max_length=32)
    names: Any = None

    @property
    def is_numbers(self) -> bool:
        try:
            kind = np.dtype(self.dtype).kind
        except TypeError:
            return False
        return kind in "fiub" and all(size > 0 for size in self.shape)

    @property
    def width(self) -> int:
        return int(np.prod(self.shape, dtype=object)) if self.shape else 1


class Info(BaseModel):
    """What info.json says, as far as an import asks for it; `fps` is rows a second."""

    codebase_version: str
    fps: FiniteFloat = Field(gt=0)
    features: dict[str, Feature] = Field(max_length=MOST_FEATURES)
    robot_type: str | None = None
    total_episodes: int | None = None

    @property
    def version(self) -> str:
        return self.codebase_version.removeprefix("v")


@dataclass(frozen=True)
class LeRobotFolder:
    """A LeRobot dataset on disk: its tables in order, and each episode's rows by its number."""

    path: Path
    info: Info
    tables: tuple[Path, ...]
    lengths: dict[int, int]


def lerobot_path(paths: Sequence[Path], mapping: Mapping | None) -> Path | None:
    """Return the folder of a LeRobot dataset, where that is what is to be imported.

    Raises UsageError where other paths stand beside it, DataError where there is none, and
    `--format` says that there is.
    """
    asked = None if mapping is None else mapping.format
    found = [path for path in paths if (path / INFO).is_file()] if asked != "robomimic" else []
    if found and len(paths) > 1:
        raise UsageError(
            f"{found[0]} is a LeRobot dataset, and other paths stand beside it: import it by itself"
        )
    if asked == "lerobot" and not found:
        raise DataError(
            f"{paths[0]}: no LeRobot dataset, for it has no {INFO}: name the folder that holds "
            "meta/ and data/"
        )
    return found[0] if found else None


def open_lerobot(path: Path) -> LeRobotFolder:
    """Read what a LeRobot dataset says of itself, and find its tables.

    Raises DataError for another version, for what is damaged, missing, or leads out of the folder.
    """
    info = _info(path)
    if info.version not in VERSIONS:
        raise DataError(
            f"LeRobot's version {clipped(info.version)}; versions {', '.join(VERSIONS)} are read. "
            "Name its tables and what their columns mean: data/*.parquet with --mapping"
        )
    tables = _tables(path, "data")
    if not tables:
        raise DataError("no table below data/: fetch it with its data, not its meta/ alone")
    episodes = _old_episodes(path) if info.version.startswith("2") else _episodes(path)
    return LeRobotFolder(path, info, tuple(tables), episodes)


def _info(folder: Path) -> Info:
    try:
        return Info.model_validate(parse_json(_read(folder, INFO)))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{INFO} can't be used: {clipped(place)}: {first['msg']}") from error
    except ValueError as error:
        raise DataError(f"{INFO} can't be read: {str(error).splitlines()[0]}") from error


def _read(folder: Path, name: str) -> str:
    path = folder / name
    try:
        check_inside(folder, path)
        return read_text(path, MOST_DOCUMENT, follow=True)
    except OSError as error:
        raise DataError(f"{name} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{name} isn't text in UTF-8: {error}") from error


def check_inside(folder: Path, path: Path) -> None:
    """Raise DataError for a path that leads out of a dataset's folder.

    In the cache of Hugging Face's hub a dataset is a folder of links to `blobs` beside it.
    """
    home, place = folder.resolve(), path.resolve()
    blobs = home.parent.parent / "blobs"
    cached = home.parent.name == "snapshots" and place.is_relative_to(blobs)
    if not (place.is_relative_to(home) or cached):
        raise DataError(f"{path.relative_to(folder)} is a link that leads out of the folder")


def _tables(folder: Path, below: str) -> list[Path]:
    """Return the tables in the folders below a name, in the order of their numbers."""
    try:
        found = [*(folder / below).glob("*.parquet"), *(folder / below).glob("*/*.parquet")]
    except OSError as error:
        raise DataError(f"{below}/ can't be read: {error}") from error
    for path in found:
        check_inside(folder, path)
    return sorted(found, key=lambda path: (natural(path.parent), natural(path)))


def _old_episodes(folder: Path) -> dict[int, int]:
    """Return each episode's rows, by its number, as version 2 keeps them: a line of JSON each."""
    name = "meta/episodes.jsonl"
    lines = [line for line in _read(folder, name).split("\n") if line.strip()]
    lengths: dict[int, int] = {}
    for number, line in enumerate(lines, 1):
        try:
            entry = parse_json(line)
            episode, length = entry[EPISODE], entry["length"]
            if type(episode) is not int or type(length) is not int:
                raise TypeError("numbers that are none")
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{name}, line {number}: expected an object with whole numbers {EPISODE} and length"
            ) from error
        lengths[episode] = length
    return lengths


def _episodes(folder: Path) -> dict[int, int]:
    """Return each episode's rows, by its number, as version 3 keeps them: in tables."""
    tables = _tables(folder, "meta/episodes")
    if not tables:
        raise DataError("no table below meta/episodes/: fetch the whole of meta/")
    lengths: dict[int, int] = {}
    for path in tables:
        columns = read_columns(path, [EPISODE, "length"])
        for name, values in columns.items():
            if values.ndim != 1 or values.dtype.kind not in "iu":
                raise DataError(f"{path.relative_to(folder)}: '{name}' holds no whole numbers")
        lengths |= dict(zip(*(values.tolist() for values in columns.values()), strict=True))
    return lengths


def check_episodes(dataset: LeRobotFolder, rows: dict[int, int]) -> None:
    """Raise DataError where the tables don't hold the episodes that meta/ has.

    `rows` are those of each episode in the tables, by its number.
    """
    missing = [number for number in dataset.lengths if number not in rows]
    if missing:
        raise DataError(
            f"{len(missing):,} of the {len(dataset.lengths):,} episodes of meta/ are in no table "
            f"below data/ (episode {listed([str(k) for k in missing])}): fetch the missing tables, "
            "or name those that are there with --mapping"
        )
    other = [number for number in rows if number not in dataset.lengths]
    if other:
        raise DataError(
            f"the tables hold episodes that meta/ doesn't have: {listed([str(k) for k in other])}"
        )
    for number, length in dataset.lengths.items():
        if rows[number] != length:
            raise DataError(
                f"episode {number} has {rows[number]:,} rows in the tables, and {length:,} by meta/"
            )
