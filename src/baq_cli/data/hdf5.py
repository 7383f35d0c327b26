"""HDF5 files of strangers: nothing outside of one is read, and no more than it can hold."""

from __future__ import annotations

import math
import zlib
from typing import Any

import h5py

from baq_cli.data.sizes import check_size

REARRANGE = {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
"""Filters that leave an array as large as it is; all others compress."""
LARGE_CHUNK = 1 << 18
"""As it is stored. Smaller ones unpack to a quarter of a gigabyte at the most."""
SEAL = 8
"""Bytes of a checksum behind a chunk."""


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
        check_stored(found, path)
    return found


def look_inside(group: h5py.h5g.GroupID, name: str) -> h5py.h5g.GroupID | h5py.h5d.DatasetID:
    """Open what lies directly below a group, to ask for its shape: it may be stored in any way.

    Raises as `open_inside` does, but for arrays whose numbers lie elsewhere.
    """
    _check_link(group, name.encode())
    return h5py.h5o.open(group, name.encode())


def check_links(group: h5py.h5g.GroupID) -> None:
    """Raise ValueError where anything below a group is a link; see `open_inside`."""

    def seen(name: bytes, info: h5py.h5l.LinkInfo) -> bytes | None:
        return None if info.type == h5py.h5l.TYPE_HARD else name

    found = group.links.visit(seen, info=True)  # up to the first that is one
    if found is not None:
        raise ValueError(_link(found))


def check_stored(dataset: h5py.h5d.DatasetID, name: str) -> None:
    """Check how an array is stored, before it is read.

    Raises ValueError when its numbers lie in other files, or when its chunks claim, or unpack to,
    far more than they could hold: a chunk is unpacked whole for each number in it.
    """
    if dataset.get_offset() is not None:  # a block of this very file
        return
    stored = dataset.get_create_plist()
    layout = stored.get_layout()
    if layout == h5py.h5d.VIRTUAL or stored.get_external_count():
        raise ValueError(f"'{name}' has its numbers in other files: only this one is read")
    if layout != h5py.h5d.CHUNKED:
        return
    filters = [stored.get_filter(k)[0] for k in range(stored.get_nfilters())]
    packing = [code for code in filters if code not in REARRANGE]
    if len(packing) > 1:
        raise ValueError(f"'{name}' is compressed {len(packing)} times; expected once at most")
    claimed = math.prod(stored.get_chunk()) * dataset.dtype.itemsize
    check_size(claimed, h5py.h5i.get_file_id(dataset).get_filesize())
    if packing and dataset.get_storage_size() > LARGE_CHUNK:
        _check_chunks(dataset, name, claimed, filters)


def _check_chunks(dataset: h5py.h5d.DatasetID, name: str, claimed: int, filters: list[int]) -> None:
    """Raise ValueError where a large chunk is larger than its array's are, or unpacks to more.

    HDF5 would unpack it to its end, wherever that is.
    """
    large = [chunk for chunk in _chunks(dataset) if chunk.size > LARGE_CHUNK]
    for chunk in large:
        if chunk.size > claimed + LARGE_CHUNK:
            raise ValueError(
                f"a chunk of '{name}' has {chunk.size:,} bytes, and claims {claimed:,}"
            )
        skipped = [code for k, code in enumerate(filters) if chunk.filter_mask >> k & 1]
        if h5py.h5z.FILTER_DEFLATE not in filters or h5py.h5z.FILTER_DEFLATE in skipped:
            continue
        unpacking = zlib.decompressobj()
        try:
            unpacking.decompress(dataset.read_direct_chunk(chunk.chunk_offset)[1], claimed + SEAL)
        except zlib.error as error:
            raise ValueError(f"a chunk of '{name}' can't be unpacked: {error}") from error
        if unpacking.unconsumed_tail:
            raise ValueError(f"a chunk of '{name}' unpacks to more than the {claimed:,} it claims")


def _chunks(dataset: h5py.h5d.DatasetID) -> list[Any]:
    found: list[Any] = []
    if hasattr(dataset, "chunk_iter"):  # of HDF5 1.14; one by one takes time squared
        dataset.chunk_iter(found.append)
        return found
    return [dataset.get_chunk_info(number) for number in range(dataset.get_num_chunks())]


def _check_link(group: h5py.h5g.GroupID, name: bytes) -> None:
    try:
        info = group.links.get_info(name)
    except (AttributeError, RuntimeError) as error:  # below what is no group, or nowhere
        raise KeyError(f"there is no '{name.decode(errors='replace')}'") from error
    if info.type != h5py.h5l.TYPE_HARD:
        raise ValueError(_link(name))


def _link(name: bytes) -> str:
    return f"'{name.decode(errors='replace')}' is a link: only what lies in the file is read"
