"""Start seeds of episodes, as wide as what writes them makes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from baq_cli.untrusted import MOST_BITS

MOST_STORED = 2**64
"""Seeds from here on have no number type in HDF5, and are written there as digits."""


def is_seed(value: object) -> bool:
    """Tell whether a value can be a start seed: a whole number of 256 bits at most.

    Minari's collector draws 64 bits without a sign; Gymnasium takes any that isn't negative.
    """
    return type(value) is int and -(2**63) <= value < 2**MOST_BITS


def seed_of(value: Any) -> int | None:
    """Return the start seed that an attribute or an entry of JSON holds, None where it holds none.

    Numbers of any width, and their digits as text, are seeds; `None`, the word for it, which
    older versions of Minari wrote, and anything else are not.
    """
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, np.integer):
        value = int(value)
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="replace")
    if isinstance(value, str):
        digits = value.strip()
        fits = len(digits) < MOST_BITS and digits.isascii() and digits.removeprefix("-").isdigit()
        value = int(digits) if fits else None
    return value if is_seed(value) else None


def stored_seed(seed: int | None) -> int | str | None:
    """Return a seed as an HDF5 attribute can hold it; Minari reads both."""
    return str(seed) if seed is not None and seed >= MOST_STORED else seed
