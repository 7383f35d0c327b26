"""Writing recordings into the Minari folder, whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from baq_cli.data.minari.commit import beside, describe_namespace, move
from baq_cli.data.minari.folder import dataset_path, quiet
from baq_cli.data.minari.seal import SEAL, sealed
from baq_cli.data.recording import Recording
from baq_cli.data.seeds import stored_seed
from baq_cli.errors import DataError
from baq_cli.plain_files import replaced
from baq_cli.surroundings import MINARI, minari_folder, refused

Array = npt.NDArray[Any]
WRITTEN = (
    *("total_episodes", "total_steps", "dataset_size", "data_format", "jpeg_encoding"),
    *("observation_space", "action_space", "env_spec", "eval_env_spec"),
    *("dataset_id", "minari_version", SEAL),
)
"""Metadata that the storage writes itself: not copied from another dataset's."""


def write_minari(dataset_id: str, recording: Recording, must_be_new: bool = True) -> None:
    """Save a recording as a Minari dataset, with its environments' specs where it has them.

    The dataset appears whole or not at all. One that another process finished meanwhile under the
    same id is left as it is: an error, unless both are the same (`must_be_new` is False).
    Raises DataError when it can't be written.
    """
    try:
        moved = _write_whole(dataset_id, recording)
    except OSError as error:
        raise refused(f"save dataset '{dataset_id}' in {minari_folder()}", error, MINARI) from error
    except RuntimeError as error:  # h5py has both
        raise DataError(
            f"cannot save dataset '{dataset_id}': {error}. Make room in the Minari folder, or name "
            "another with MINARI_DATASETS_PATH."
        ) from error
    if must_be_new and not moved:
        raise DataError(
            f"cannot save dataset '{dataset_id}': another process saved one under this id "
            "meanwhile, which was left as it is. Choose another id."
        )


def _write_whole(dataset_id: str, recording: Recording) -> bool:
    """Write beside the Minari folder, then rename into it.

    The environment is described, not made: nothing that a stranger's log names is imported.
    """
    from minari.dataset.minari_storage import MinariStorage

    with beside() as partial, quiet():
        folder = partial / "dataset"
        folder.mkdir()
        storage: Any = MinariStorage.new(
            folder / "data", recording.observation_space, recording.action_space
        )
        storage.update_metadata(_metadata(dataset_id, recording))
        # Minari's own passes over files that it may not see, and then has no size to write.
        storage.get_size = lambda: _megabytes(folder / "data")
        # HDF5 crashes the process when a disk fills up below it: it writes to memory here.
        path, storage._file_path = storage._file_path, io.BytesIO()
        storage.update_episodes(_buffers(recording))
        content = storage._file_path.getbuffer()
        with replaced(path) as file:
            file.write(content)
        storage.update_metadata({"dataset_size": storage.get_size()})
        written = MinariStorage.read_raw_metadata(folder / "data")
        storage.update_metadata({SEAL: sealed(written, content)[SEAL]})
        moved = move(folder, dataset_path(dataset_id))
        describe_namespace(dataset_id)
        return moved


def _megabytes(folder: Path) -> float:
    return round(sum(file.stat().st_size for file in folder.iterdir()) / 1e6, 1)


def _metadata(dataset_id: str, recording: Recording) -> dict[str, Any]:
    import minari

    kept = {name: value for name, value in recording.about.items() if name not in WRITTEN}
    for name in ("author", "author_email"):  # Minari wants sets here, and stores lists
        if name in kept:
            kept[name] = {kept[name]} if isinstance(kept[name], str) else set(kept[name])
    named = {"env_spec": recording.env_spec, "eval_env_spec": recording.eval_env_spec}
    specs = {name: spec.to_json() for name, spec in named.items() if spec is not None}
    return {**kept, **specs, "dataset_id": dataset_id, "minari_version": minari.__version__}


def _buffers(recording: Recording) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    seeds = recording.seeds or (None,) * len(recording.lengths)
    start = first = 0
    for number, (length, seed) in enumerate(zip(recording.lengths.tolist(), seeds, strict=True)):
        steps, rows = slice(start, start + length), slice(first, first + length + 1)
        yield EpisodeBuffer(
            id=number,
            seed=stored_seed(seed),
            observations=_nested({n: a[rows] for n, a in recording.observations.items()}),
            actions=recording.actions[steps],
            rewards=recording.rewards[steps],
            terminations=recording.terminated[steps],
            truncations=recording.truncated[steps],
            infos=_nested(
                {
                    name: info[steps if len(info) == len(recording.rewards) else rows]
                    for name, info in recording.infos.items()
                }
            ),
        )
        start, first = steps.stop, rows.stop


def _nested(parts: dict[str, Array]) -> Any:
    """Turn names that are paths into dictionaries in dictionaries; a part named '' stands alone."""
    if list(parts) == [""]:
        return parts[""]
    nested: dict[str, Any] = {}
    for name, part in parts.items():
        *parents, key = name.split("/")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[key] = part
    return nested
