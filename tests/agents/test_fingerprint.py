"""Every method computes what it computed when the record was made, to the bit on that machine.

One seed is trained as it is written, a variant of a method also as it is resumed after a death (of
methods, test_resume_all.py holds that); three seeds recorded.

A change that must alter a number writes the record anew (`python tests/fingerprint.py`), and its
commit says which number and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fingerprint import CASES, RECORD, SEEDS, VARIANTS, machine, of_case, prepared

KEPT = json.loads(RECORD.read_text())


@pytest.fixture(scope="module", autouse=True)
def _prepared() -> Iterator[None]:
    with prepared():
        yield


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_a_method_computes_what_it_did(name: str, seeds: int, tmp_path: Path) -> None:
    found = of_case(name, seeds, seeds > 1, tmp_path, killed=seeds == 1 and name in VARIANTS)
    kept = KEPT["prints"][f"{name}-{seeds}"]
    assert found.keys() == kept.keys()
    for phase in found:
        one, other = found[phase]["tensors"], kept[phase]["tensors"]
        assert one.keys() == other.keys()
        for tensor, numbers in one.items():
            np.testing.assert_allclose(numbers, other[tensor], rtol=1e-3, atol=1e-4, err_msg=tensor)
        if machine() == KEPT["machine"]:
            assert found[phase]["sha256"] == kept[phase]["sha256"], phase
