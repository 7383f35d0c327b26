"""Datasets kept as flat float32 arrays, so that they are read and checked once.

The arrays lie in a safetensors file named by their content hash; a small index file says which
content a dataset's files had when they were last read. Both can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from baq_cli.data.episodes import ARRAYS, INTERVENTION, DataOrigin, Episodes, Finding
from baq_cli.envs.ref import EnvRef
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError
from baq_cli.plain_files import MOST_DOCUMENT, check_plain, replaced
from baq_cli.surroundings import CACHE, cache_folder
from baq_cli.untrusted import parse_json, read_text

VERSION = 3
"""Raised when what is kept, or what the checks find, changes."""


def fingerprint(files: Sequence[Path]) -> str:
    """Return a mark that changes when one of the files is replaced or written to."""
    states = []
    for path in files:
        state = path.stat()
        times = (state.st_mtime_ns, state.st_ctime_ns)
        states.append([str(path.resolve()), state.st_size, *times, state.st_ino])
    return hashlib.sha256(json.dumps([VERSION, states]).encode()).hexdigest()


def find(mark: str) -> Episodes | None:
    """Return the dataset that was kept under a mark, mapped from its file, or None.

    What was kept is compared with its content hash; where it differs, it is as if nothing were
    there.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        text, check = parse_json(read_text(_index(mark), MOST_DOCUMENT, follow=True))
        if _check(text) != check:
            return None
        entry = parse_json(text)
        check_plain(_arrays(entry["sha256"]))
        tensors = safetensors.torch.load_file(_arrays(entry["sha256"]))
        names = (*ARRAYS, *({INTERVENTION} & tensors.keys()))
        arrays: dict[str, Any] = {name: tensors[name].numpy() for name in names}
        episodes = Episodes(
            dataset_id=entry["dataset_id"],
            spaces=Spaces.from_fields(entry["spaces"]),
            origin=_origin(entry["origin"]),
            findings=tuple(Finding(**finding) for finding in entry["findings"]),
            **arrays,
        )
    except (OSError, RuntimeError, SafetensorError, DataError):  # PyTorch's, where it can't map
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return episodes if episodes.content_hash == entry["sha256"] else None


def keep(mark: str, episodes: Episodes) -> str | None:
    """Keep a dataset under a mark; return what stands in the way of it, which is no error."""
    import safetensors.numpy
    from safetensors import SafetensorError

    entry = {
        "dataset_id": episodes.dataset_id,
        "sha256": episodes.content_hash,
        "spaces": asdict(episodes.spaces),
        "origin": asdict(episodes.origin),
        "findings": [asdict(finding) for finding in episodes.findings],
    }
    try:
        place = _arrays(episodes.content_hash)
        for path in (place, _index(mark)):
            path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(place, sync=False) as file:
            safetensors.numpy.save_file(episodes.arrays, file.name)
        text = json.dumps(entry)
        with replaced(_index(mark), sync=False) as file:
            file.write(json.dumps([text, _check(text)]).encode())
    except (OSError, SafetensorError, DataError) as error:
        return (
            f"it can't be kept in the cache ({error}), so it is read and checked anew each time; "
            f"{CACHE} names another folder"
        )
    return None


def _index(mark: str) -> Path:
    return cache_folder() / "index" / f"{mark}.json"


def _arrays(content_hash: str) -> Path:
    return cache_folder() / "arrays" / f"{content_hash}.safetensors"


def _check(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _origin(fields: dict[str, Any]) -> DataOrigin:
    lists = {name: tuple(fields[name]) for name in ("requirements", "seeds")}
    evaluated = fields["eval_env"] and EnvRef.from_fields(fields["eval_env"])
    return DataOrigin(**{**fields, **lists, "eval_env": evaluated})
