"""What tensors of a checkpoint have to be, and the word where they are not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from baq_cli.errors import DataError

ESTIMATE = "estimate."
"""How the tensors are named that an estimate goes on from; what they have to be, it knows."""
Shape = tuple[tuple[int, ...], torch.dtype]


def shape_of(tensor: Tensor) -> Shape:
    """Return a tensor's shape and type."""
    return tuple(tensor.shape), tensor.dtype


def check_shapes(found: Mapping[str, Shape], expected: Mapping[str, Shape], folder: Path) -> None:
    """Raise DataError where tensors are missing, too many, or of another shape or type."""
    differ = sorted(found.keys() ^ expected.keys())
    if differ:
        more = "has" if differ[0] in found else "lacks"
        raise damaged(folder, f"it {more} the tensor '{differ[0][:200]}'")
    for name, (shape, dtype) in expected.items():
        if found[name] != (shape, dtype):
            now = f"{found[name][1]} {list(found[name][0])}"
            raise damaged(folder, f"'{name}' is {now}, expected {dtype} {list(shape)}")


def damaged(folder: Path, what: str) -> DataError:
    """Return the error of a checkpoint that can't be what was saved."""
    return DataError(f"{folder} is damaged: {what}")
