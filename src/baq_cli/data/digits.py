"""What float32, which training reads, leaves of numbers that were recorded with more digits.

It has 24 bits: of metres around five million it tells every half apart, of Unix time every two
minutes. An offset that only the dataset knew would be missing where a policy acts, so nothing is
subtracted here: what is lost is measured, and told with what to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
OFF = 0.1
"""How much of a change between two rows float32 may get wrong."""
FINE = 1e-6
"""The rounding, in parts of a dimension's spread, that loses nothing but noise."""
NOISE = 1e-12
"""The spread, in parts of the numbers, below which it is double precision's own error."""
BLOCK_ROWS, EVERY_BLOCK, THINNED = 1 << 14, 8, 8
"""Rows are compared in blocks: the first ones all, then one in eight, which tells what most do."""
MOST_EXAMINED = 8
"""Dimensions of an array that are looked at number by number."""
EXACT = {np.dtype(name) for name in ("f2", "f4", "i1", "i2", "u1", "u2", "?")}
"""Types whose every number float32 has."""
TINY = float(np.finfo(np.float32).tiny)
Column = Callable[[int], Array]


@dataclass(frozen=True)
class Loss:
    """What float32 leaves of one dimension, in its own units.

    `left` of `values` different ones remain; `rounding` is the most that any is moved by, `step`
    the median change between rows, `spread` the range of all but the outermost hundredth.
    `offset`, where it isn't None, is a number that makes up for it when it is subtracted.
    """

    dimension: int
    values: int
    left: int
    rounding: float
    step: float
    spread: float
    offset: float | None


class Meter:
    """Compares an array with its float32 form while it is read, an episode at a time.

    What counts is whether changes between rows survive: those inside an episode, and those from
    one episode's first row to the next one's. `restore` brings what training reads back to the
    array's own units.
    """

    def __init__(self, restore: Callable[[Array], Array] | None = None):
        self._restore = restore
        self._waiting: list[tuple[Array, Array]] = []
        self._rows = self._seen = 0
        self._before: tuple[Array, Array] | None = None
        self._changed: Any = 0
        self._off: Any = 0
        self.lengths: list[int] = []

    def __call__(self, values: Array, kept: Array) -> None:
        """Take an episode's rows, as recorded and as training reads them: `[T, …]`, `[T, D]`."""
        self.lengths.append(len(values))
        if self._restore is None and values.dtype in EXACT:
            return
        block = self._seen // BLOCK_ROWS
        self._seen += len(values)
        if block >= EVERY_BLOCK and block % THINNED:
            return
        self._waiting.append((_two_axes(values), _two_axes(kept)))
        self._rows += len(values)
        if self._rows >= BLOCK_ROWS:
            self._compare()

    def suspects(self) -> list[int]:
        """Return the dimensions of which float32 gets most changes wrong."""
        self._compare()
        share = np.asarray(self._off) * 2 > np.asarray(self._changed)
        return [int(k) for k in np.flatnonzero(share.reshape(2, -1).any(0))] if share.ndim else []

    def losses(self, column: Column, kept: Array) -> list[Loss]:
        """Return what is lost. `column(k)` gives a dimension as recorded, `[N]`; kept `[N, D]`."""
        kept = _two_axes(kept)
        found = []
        for dimension in self.suspects()[:MOST_EXAMINED]:
            seen = kept[:, dimension]
            if self._restore is not None:
                seen = self._restore(kept)[:, dimension]
            loss = _measured(dimension, column(dimension), seen, self.lengths)
            if loss is not None:
                found.append(loss)
        return found

    def _compare(self) -> None:
        if not self._waiting:
            return
        values = np.concatenate([given for given, _ in self._waiting])
        kept = np.concatenate([seen for _, seen in self._waiting])
        lengths = [len(given) for given, _ in self._waiting]
        self._waiting, self._rows = [], 0
        if self._restore is not None:
            kept = self._restore(kept)
        firsts = np.cumsum(lengths) - lengths
        inside = np.ones(len(values), dtype=np.bool_)
        inside[firsts] = False
        starts, seen = values[firsts], kept[firsts]
        if self._before is not None:
            starts = np.concatenate([self._before[0], starts])
            seen = np.concatenate([self._before[1], seen])
        self._before = values[firsts[-1:]], kept[firsts[-1:]]
        changed, off = zip(
            _changes(values, kept, inside[1:]), _changes(starts, seen, None), strict=True
        )
        self._changed = self._changed + np.stack(changed)
        self._off = self._off + np.stack(off)


def _changes(values: Array, kept: Array, inside: Array | None) -> tuple[Array, Array]:
    """Count the changes between rows, and those that float32 gets wrong, by dimension."""
    with np.errstate(all="ignore"):  # what is not finite is another check's
        true = _differences(values)
        wrong = np.abs(true - np.diff(kept.astype(np.float64), axis=0))
        changed = (np.abs(true) > TINY) & np.isfinite(wrong)
        off = changed & (wrong > OFF * np.abs(true))
    if inside is not None:
        changed, off = changed[inside], off[inside]
    return changed.sum(0), off.sum(0)


def _differences(values: Array) -> Array:
    """Return the changes from row to row as float64, exact for whole numbers of any width."""
    return _less(values[1:], values[:-1])


def _less(values: Array, other: Array) -> Array:
    if values.dtype.kind in "iu":  # modulo 2⁶⁴: right wherever the difference fits
        wide = values.astype(np.uint64) - other.astype(np.uint64)
        return wide.view(np.int64).astype(np.float64)
    return np.subtract(values, other, dtype=np.result_type(values, np.float64)).astype(np.float64)


def _measured(dimension: int, values: Array, kept: Array, lengths: Sequence[int]) -> Loss | None:
    """Return the loss of one dimension, None where it is noise at most."""
    finite = np.isfinite(values) & np.isfinite(kept)
    if not finite.any():
        return None
    near, inside = values[finite], _inside(lengths)[finite[1:] & finite[:-1]]
    middle = np.sort(near)[len(near) // 2]
    apart = _less(near, middle)  # whole numbers of 64 bits keep their differences
    low, high = np.quantile(apart, [0.005, 0.995])
    spread = float(high - low) or float(apart.max() - apart.min())
    rounding = np.abs(_less(near, middle) - (kept[finite].astype(np.float64) - float(middle)))
    whole = near.dtype.kind in "iu"
    if not whole and spread < NOISE * float(np.abs(near).max()):
        return None
    if float(np.quantile(rounding, 0.95)) <= FINE * spread:
        return None
    step = _typical(_differences(values)[finite[1:] & finite[:-1]], inside)
    offset = _short(float(middle), spread)
    shifted = (apart + (float(middle) - offset))[:, None]
    changed, off = _changes(shifted, shifted.astype(np.float32), inside)
    helps = bool(off.item() * 2 <= changed.item())
    return Loss(
        dimension,
        len(np.unique(near)),
        len(np.unique(kept[finite])),
        float(rounding.max()),
        step,
        spread,
        offset if helps and offset else None,
    )


def _typical(changes: Array, inside: Array) -> float:
    """Return the median change inside episodes, or between them where nothing changes inside."""
    for chosen in (changes[inside], changes):
        moved = np.abs(chosen[chosen != 0])
        if len(moved):
            return float(np.median(moved))
    return 0.0


def _inside(lengths: Sequence[int]) -> Array:
    """Mark the pairs of neighbouring rows that lie in one episode, `[N − 1]`."""
    inside = np.ones(sum(lengths), dtype=np.bool_)
    inside[np.cumsum(lengths) - lengths] = False
    return inside[1:]


def _short(middle: float, spread: float) -> float:
    """Return a number with few digits that is nearer to the middle than the spread."""
    return float(round(middle, -math.floor(math.log10(spread)))) if spread > 0 else middle


def _two_axes(array: Array) -> Array:
    return array.reshape(len(array), -1)


def losses_of(
    values: Array,
    kept: Array,
    lengths: Array,
    restore: Callable[[Array], Array] | None = None,
) -> list[Loss]:
    """Return what is lost of a whole array `[N, …]` whose episodes have `lengths` rows."""
    meter = Meter(restore)
    start = 0
    for length in lengths.tolist():
        meter(values[start : start + length], kept[start : start + length])
        start += length
    return meter.losses(lambda k: _two_axes(values)[:, k], kept)
