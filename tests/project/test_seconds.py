"""Which tests are quick, and in which order files are tested, follows from what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import seconds
from support.seconds import NOTED, QUICK_SECONDS, UNNOTED, longest_first, quick, record, recorded

TOOK = st.dictionaries(
    st.builds("a/test_{}.py::test_{}".format, st.integers(0, 9), st.integers(0, 99)),
    st.floats(NOTED, 2 * QUICK_SECONDS),
)


ROUNDING = 1e-6


def with_files(took: dict[str, float]) -> dict[str, float]:
    return took | {name.partition("::")[0]: 1.0 for name in took}


@given(TOOK, st.integers(0, 99))
def test_quick_tests_fit_into_their_time_and_no_shorter_one_is_left_out(
    took: dict[str, float], new: int
) -> None:
    known = with_files(took)
    names = {*took, f"a/test_0.py::test_new_{new}", f"b/test_0.py::test_{new}"}
    found = quick(names, known)
    seconds_of = {n: took.get(n, UNNOTED) for n in names if n.partition("::")[0] in known}
    total = sum(seconds_of[name] for name in found)
    assert total <= QUICK_SECONDS + ROUNDING
    left = [seconds for name, seconds in seconds_of.items() if name not in found]
    if left:
        assert total + min(left) >= QUICK_SECONDS - ROUNDING
        assert all(seconds_of[name] <= min(left) for name in found)


def test_a_file_that_was_never_measured_has_no_quick_tests_and_comes_first() -> None:
    known = {"a.py": 1.0, "b.py": 5.0}
    names = ["a.py::x", "b.py::x", "c.py::x", "a.py::y", "c.py::y"]
    assert quick(names, known) == {"a.py::x", "a.py::y", "b.py::x"}
    assert longest_first([0, 1, 2, 3, 4], names, known) == [2, 4, 1, 0, 3]


def test_what_is_recorded_is_a_functions_own_time_and_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seconds, "RECORD", tmp_path / "seconds.json")
    assert recorded() == {}
    record({"a.py::x[1]": 0.25, "a.py::x[2::[3]]": 0.5, "a.py::y": 0.04, "b.py::z": 0.01})
    assert recorded() == {"a.py": 0.8, "a.py::x": 0.8, "b.py": 0.0}
