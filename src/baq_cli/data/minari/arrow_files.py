"""Reading Minari's Arrow and Parquet datasets: a folder of tables for each episode.

Minari's own reader takes the pieces in which a table is read for episodes: those of more than
32,767 rows are cut there, and as many of the last ones left out. It also fails at infos of one
number a step. So the tables are read here, a folder at a time, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.parquet_claims import check_claims
from baq_cli.data.minari.folder import MOST_METADATA
from baq_cli.data.minari.stored import StoredDataset
from baq_cli.data.recording import Recording
from baq_cli.data.seeds import seed_of
from baq_cli.data.sizes import Claims
from baq_cli.envs.spaces import observation_parts
from baq_cli.errors import DataError, UsageError
from baq_cli.plain_files import check_plain
from baq_cli.untrusted import parse_json, read_text

Array = npt.NDArray[Any]
Columns = dict[str, Array]
FORMATS = ("arrow", "parquet")
COLUMNS = ("rewards", "terminations", "truncations")


def read_tables(stored: StoredDataset) -> Recording:
    """Read a dataset that Minari stored as Arrow or Parquet tables.

    Raises DataError when it is damaged, UsageError when pyarrow is missing.
    """
    form = stored.metadata["data_format"]
    if form not in FORMATS:
        raise stored.damaged(f"its format '{form}' is none of hdf5, {', '.join(FORMATS)}")
    try:
        import pyarrow
        import pyarrow.dataset
    except ImportError as error:
        raise UsageError(
            f"dataset '{stored.dataset_id}' is stored as {form}, which needs pyarrow: "
            "pip install 'baq-cli[parquet]'"
        ) from error
    observation_space, action_space = stored.spaces
    try:
        claims = Claims(sum(path.stat().st_size for path in stored.files))
        episodes, seeds = [], []
        for folder in _folders(stored):
            said = _said(folder)
            columns = _columns(folder, form, observation_space, action_space, claims)
            steps = said.get("total_steps", len(columns["rewards"]))
            if steps != len(columns["rewards"]) or not steps:
                raise ValueError(
                    f"episode {folder.name} has {len(columns['rewards'])} steps; expected {steps}"
                )
            episodes.append(columns)
            seeds.append(seed_of(said.get("seed")))
        return _joined(stored, episodes, tuple(seeds))
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, RuntimeError),
        *(NotImplementedError, pyarrow.ArrowException),
    ) as error:
        raise stored.damaged(str(error).splitlines()[0] if str(error) else repr(error)) from error


def _folders(stored: StoredDataset) -> list[Path]:
    """Return the folders of the episodes, in their order; each must be there."""
    found = {
        p.name for p in stored.data.iterdir() if p.is_dir() and not p.name.startswith((".", "_"))
    }
    names = [str(number) for number in range(len(found))]
    if not names:
        raise DataError(f"dataset '{stored.dataset_id}' holds no episodes")
    if found != set(names):
        raise ValueError(f"it has no episode {min(set(names) - found, key=int)}")
    said = stored.metadata.get("total_episodes", len(names))
    if said != len(names):
        raise ValueError(f"it holds {len(names)} episodes, and says {said}")
    return [stored.data / name for name in names]


def _said(folder: Path) -> dict[str, Any]:
    path = folder / "metadata.json"
    said = parse_json(read_text(path, MOST_METADATA, follow=True)) if path.exists() else {}
    if not isinstance(said, dict):
        raise ValueError(f"what episode {folder.name} says of itself is no object")
    return said


def _columns(
    folder: Path, form: str, observations: gym.Space[Any], actions: gym.Space[Any], claims: Claims
) -> Columns:
    """Read an episode's table: `observations/…` of T+1 rows, the rest of T; infos of T+1."""
    from pyarrow import dataset

    files = sorted(path for path in folder.iterdir() if path.suffix == f".{form}")
    for path in files:
        check_plain(path)
        if form == "parquet":
            _check_parquet(path)
    table = dataset.dataset([str(path) for path in files], format=form).to_table()
    claims.add(table.nbytes)
    found: Columns = {}
    whole = {name: table.column(name).combine_chunks() for name in table.column_names}
    steps = table.num_rows - 1
    for name, box in observation_parts(observations).items():
        part = whole["observations"]
        for key in filter(None, name.split("/")):
            part = part.field(key)
        found[_path("observations", name)] = _rows(part).reshape(table.num_rows, *box.shape)
    found["actions"] = _rows(whole["actions"]).reshape(table.num_rows, *(actions.shape or ()))[
        :steps
    ]
    for name in COLUMNS:
        found[name] = _rows(whole[name])[:steps]
    if "infos" in whole:
        found |= dict(_infos(whole["infos"], "infos"))
    return found


def _check_parquet(path: Path) -> None:
    from pyarrow import parquet

    metadata = parquet.read_metadata(path)
    check_claims(metadata, metadata.schema.to_arrow_schema().names, path)


def _rows(column: Any) -> Array:
    """Return an Arrow column of numbers, or of lists of as many numbers, `[N]` or `[N, D]`."""
    from pyarrow import types

    rows = len(column)
    while types.is_list(column.type) or types.is_fixed_size_list(column.type):
        column = column.flatten()
    values = np.asarray(column.to_numpy(zero_copy_only=False))
    if values.dtype.kind not in "fiub":
        raise TypeError(f"a column is of type {column.type}; expected numbers")
    return values.reshape(rows, -1) if len(values) != rows else values


def _infos(column: Any, name: str) -> Iterator[tuple[str, Array]]:
    """Yield the infos that are numbers, by path."""
    from pyarrow import types

    for number, field in enumerate(column.type):
        inner, path = column.field(number), f"{name}/{field.name}"
        if types.is_struct(inner.type):
            yield from _infos(inner, path)
            continue
        try:
            values = _rows(inner)
            shape = (field.metadata or {}).get(b"shape", b"").decode()
            if shape:
                values = values.reshape(len(inner), *map(int, shape.split(",")))
        except (TypeError, ValueError):  # words, or lists of different lengths
            continue
        yield path, values


def _joined(
    stored: StoredDataset, episodes: list[Columns], seeds: tuple[int | None, ...]
) -> Recording:
    observation_space, action_space = stored.spaces

    def column(name: str) -> Array:
        return np.concatenate([episode[name] for episode in episodes])

    shared = set.intersection(*({n for n in e if n.startswith("infos/")} for e in episodes))
    alike = [n for n in episodes[0] if n in shared and len({e[n].shape[1:] for e in episodes}) == 1]
    return Recording(
        observation_space=observation_space,
        action_space=action_space,
        observations={
            name: column(_path("observations", name))
            for name in observation_parts(observation_space)
        },
        actions=column("actions"),
        rewards=column("rewards"),
        terminated=column("terminations"),
        truncated=column("truncations"),
        lengths=np.asarray([len(episode["rewards"]) for episode in episodes], dtype=np.int64),
        seeds=seeds,
        infos={name.removeprefix("infos/"): column(name) for name in alike},
        env_spec=stored.env_spec,
        eval_env_spec=stored.eval_env_spec,
        about=stored.metadata,
    )


def _path(*names: str) -> str:
    return "/".join(name for name in names if name)
