"""HDF5 files of strangers: nothing outside of one is read, and no more than it can hold."""

from __future__ import annotations

import h5py

MOST_EXPANSION = 2_000
"""A file whose arrays claim more than this many times its own size is taken for damaged."""
LARGE, MOST_EXPANSION_OF_LARGE = 1 << 30, 200
"""Of claims beyond a gigabyte less is believed: no log compresses so well."""


def check_size(claimed_bytes: int, file_bytes: int) -> None:
    """Raise ValueError where arrays claim far more than the file could hold."""
    most = MOST_EXPANSION if claimed_bytes <= LARGE else MOST_EXPANSION_OF_LARGE
    if claimed_bytes > most * file_bytes:
        raise ValueError(f"an array claims {claimed_bytes:,} bytes in a file of {file_bytes:,}")


class Claims:
    """What the arrays of a file claim, all together."""

    def __init__(self, file_bytes: int):
        self._file_bytes, self._claimed = file_bytes, 0

    def add(self, claimed_bytes: int) -> None:
        """Raise ValueError where it becomes far more than the file could hold."""
        self._claimed += claimed_bytes
        check_size(self._claimed, self._file_bytes)


def open_inside(group: h5py.h5g.GroupID, path: str) -> h5py.h5g.GroupID | h5py.h5d.DatasetID:
    """Open what lies below a group.

    Raises KeyError when nothing does, ValueError for what lies outside of the file: behind a link,
    in another file's arrays or in raw files.
    """
    found = group
    for name in path.split("/"):
        _check_link(found, name.encode())
        found = h5py.h5o.open(found, name.encode())
    if isinstance(found, h5py.h5d.DatasetID):
        check_stored_inside(found, path)
    return found


def check_links(group: h5py.h5g.GroupID) -> None:
    """Raise ValueError where anything below a group is a link; see `open_inside`."""

    def seen(name: bytes, info: h5py.h5l.LinkInfo) -> bytes | None:
        return None if info.type == h5py.h5l.TYPE_HARD else name

    found = group.links.visit(seen, info=True)  # up to the first that is one
    if found is not None:
        raise ValueError(_link(found))


def check_stored_inside(dataset: h5py.h5d.DatasetID, name: str) -> None:
    """Raise ValueError for an array whose numbers lie in other files."""
    if dataset.get_offset() is not None:  # a block of this very file
        return
    stored = dataset.get_create_plist()
    if stored.get_layout() == h5py.h5d.VIRTUAL or stored.get_external_count():
        raise ValueError(f"'{name}' has its numbers in other files: only this one is read")


def _check_link(group: h5py.h5g.GroupID, name: bytes) -> None:
    try:
        info = group.links.get_info(name)
    except (AttributeError, RuntimeError) as error:  # below what is no group, or nowhere
        raise KeyError(f"there is no '{name.decode(errors='replace')}'") from error
    if info.type != h5py.h5l.TYPE_HARD:
        raise ValueError(_link(name))


def _link(name: bytes) -> str:
    return f"'{name.decode(errors='replace')}' is a link: only what lies in the file is read"
