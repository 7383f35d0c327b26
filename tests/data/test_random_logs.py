"""Random logs with columns under any usual name: read as the table in docs/data.md says.

What is imported is what a plain reading of the same rows gives, or the log is refused; more of
the same with BAQ_TORTURE=1 (`make torture`).
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baq_cli.data.checks import content_findings, refuse
from baq_cli.data.episodes import Episodes
from baq_cli.data.exchange import read_file
from baq_cli.data.logs.cutting import CutRules
from baq_cli.data.logs.logfile import to_recording
from baq_cli.errors import DataError, UsageError
from support.logs import NEW, bounded, write_table

TORTURE = os.environ.get("BAQ_TORTURE") == "1"
often = settings(max_examples=20_000 if TORTURE else 150, derandomize=not TORTURE)
Flags = list[int]
Transition = tuple[int, int | None, bool]
"""A row, the row that it leads to (None after a termination), and whether it terminated."""

NAMES = {
    "T": ("terminated", "terminals", "Terminated", "next.terminated", "is_terminated"),
    "U": ("truncated", "timeouts", "TimeLimit.truncated", "time_out", "Truncations"),
    "D": ("done", "dones", "Done", "next.done", "episode_done"),
    "L": ("is_last", "episode_end", "last", "traj_end"),
    "F": ("is_first", "episode_start", "FIRST"),
    "E": ("episode", "episode_id", "episode_index", "traj_id"),
    "S": ("t", "step", "frame_index", "timestep"),
}
USUAL = {"episode", "episode_id"}
NOISE = ("reward_sparse", "cost", "success", "next.success", "temperature", "masks", "score")
DTYPES = ("bool", "i1", "u1", "i8", "f2", "f4", "f8")


def imported(
    form: str, columns: dict[str, Any], rules: CutRules, folder: str
) -> tuple[Episodes, int] | None:
    """Import a log of N rows, the number of each in its observation; None where it is refused."""
    path = Path(folder) / "log.npz"
    if form == "csv":
        path = write_table(form, Path(folder), columns)
    else:
        np.savez(path, **columns)
    try:
        recording, lost = to_recording(read_file(path, None), bounded(rules, 1000))
        episodes = recording.episodes(NEW)
        return refuse(episodes, content_findings(episodes)), lost
    except (DataError, UsageError):
        return None


def transitions(episodes: Episodes) -> list[Transition]:
    found = zip(
        episodes.obs[:, 0].astype(int).tolist(),
        episodes.next_obs[:, 0].astype(int).tolist(),
        episodes.terminated.tolist(),
        strict=True,
    )
    return [(row, None if done else following, done) for row, following, done in found]


def rows_of(n: int) -> dict[str, Any]:
    """Return observations, actions and rewards that tell each of N rows from the others."""
    index = np.arange(n)
    return {"obs": index * 1.0, "action": index - 500.0, "reward": index * 2.0}


def assert_whole(episodes: Episodes, lost: int, n: int) -> None:
    """No row is changed, none comes twice, and those left out are counted."""
    rows = episodes.obs[:, 0].astype(int)
    assert episodes.reward.tolist() == (rows * 2.0).tolist()
    assert np.allclose(episodes.spaces.to_env(episodes.action)[:, 0], rows - 500.0, atol=1e-3)
    assert len(set(rows.tolist())) == len(rows)
    assert len(rows) + lost == n


def typed(flags: Flags, dtype: str, form: str) -> Any:
    """Return flags as a log may write them; in a .csv as words, too."""
    array = np.array(flags).astype(dtype)
    if form == "csv" and dtype == "bool":
        return [str(bool(flag)) for flag in flags]
    return array.tolist() if form == "csv" else array


# -- columns that say anything: the table of docs/data.md, in plain words


@dataclass
class Told:
    """The columns of a log by what they are: names are of any usual kind."""

    n: int
    T: Flags | None = None
    U: Flags | None = None
    D: Flags | None = None
    L: Flags | None = None
    F: Flags | None = None
    E: list[int] | None = None
    usual_number: bool = False


def plain(told: Told, limit: int | None) -> list[Transition] | None:
    """Return the transitions that the table gives; None where it says that one is asked."""
    n, T, U = told.n, told.T, told.U
    number = told.E if told.usual_number or U is None else None
    if T is None and U is not None and told.D is not None and any(told.D):
        both = [d and u for d, u in zip(told.D, U, strict=True)]
        if any(both) and any(u and not d for d, u in zip(told.D, U, strict=True)):
            return None
        T = [int(d and not u) for d, u in zip(told.D, U, strict=True)]
        told = replace(told, D=None)  # with U, T says all that done did
    if T is None and U is None and number is None:
        return None
    if T is None and U is None and told.D is not None and any(told.D):
        return None
    known_T = T is not None
    T = T or [0] * n
    if number is not None:
        last = [i == n - 1 or number[i + 1] != number[i] for i in range(n)]
        if not runs_are_episodes(number, last, T, U):
            return None
    else:
        ends = any_ends(told, T) if U is None else [T[i] or U[i] for i in range(n)]
        if ends is None:
            return None
        last, step = [], 0
        for i in range(n):
            step += 1
            stop = bool(ends[i] or T[i]) or i == n - 1
            limited = U is None and ends == T and limit is not None and step >= limit
            last.append(stop or limited)
            step = 0 if last[-1] else step
    for i in range(n):
        flagged = T[i] or (U is not None and U[i])
        final = i + 1 < n and last[i + 1] and not T[i + 1]  # a row for its observation alone
        if flagged and not last[i] and not final:
            return None
    if not agree(told, last, T if known_T else None):
        return None
    kept = [i for i in range(n) if T[i] or not last[i]]
    return [(i, None if T[i] else i + 1, bool(T[i])) for i in kept] or None


def runs_are_episodes(number: list[int], last: list[bool], T: Flags, U: Flags | None) -> bool:
    """A number may come back if the rows before had ended."""
    seen: dict[int, bool] = {}
    for i, end in enumerate(last):
        first = i == 0 or last[i - 1]
        if first and not seen.get(number[i], True):
            return False
        if end:
            seen[number[i]] = bool(T[i] or (U is not None and U[i]))
    return True


def any_ends(told: Told, T: Flags) -> Flags | None:
    """Return the ends that done, last and first mark beside those of T, which they must hold."""
    n, found = told.n, set()
    for column in (told.D, told.L, told.F and [*told.F[1:], 1]):
        if column is None or not any(column[: n - 1] if column is not told.F else column):
            continue
        ends = tuple(int(bool(c)) for c in column[:-1])
        pairs = list(zip(ends, T[:-1], strict=True))
        if all(e or not t for e, t in pairs) and any(e and not t for e, t in pairs):
            found.add(ends)
    if len(found) > 1:
        return None
    return [*found.pop(), 1] if found else list(T)


def agree(told: Told, last: list[bool], T: Flags | None) -> bool:
    """Tell whether no column marks an end where there is none."""
    n, starts = told.n, [True, *last[:-1]]
    for column, places in ((told.D, last), (told.L, last), (told.F, starts)):
        if column is not None and any(c and not p for c, p in zip(column, places, strict=True)):
            return False
    if told.E is None:
        return True
    changes = [True, *(told.E[i] != told.E[i - 1] for i in range(1, n))]
    return changes == starts


@st.composite
def anything(draw: st.DrawFn) -> tuple[Told, dict[str, Any], str, int | None]:
    n, form = draw(st.integers(2, 9)), draw(st.sampled_from(["csv", "npz"]))
    marks = st.lists(st.sampled_from([0, 0, 0, 1]), min_size=n, max_size=n)
    told, columns = Told(n), rows_of(n)
    base = draw(marks)  # columns often mark the same rows, and are read then
    for family in draw(st.sets(st.sampled_from("TUDLFE"), min_size=1)):
        name = draw(st.sampled_from(NAMES[family]))
        if family == "E":
            steps = draw(st.sampled_from(["own", "base"]))
            change = base if steps == "base" else draw(marks)
            wrap = draw(st.sampled_from([2, 100]))
            told.E = [int(v) % wrap for v in np.cumsum([0, *change[:-1]])]
            told.usual_number = name in USUAL
            columns[name] = typed(told.E, draw(st.sampled_from(DTYPES[1:])), form)
            continue
        flags = draw(st.sampled_from(["own", "base", "none"]))
        flags = {"own": draw(marks), "base": list(base), "none": [0] * n}[flags]
        if family == "F" and flags == base:
            flags = [1, *base[:-1]]
        setattr(told, family, flags)
        columns[name] = typed(flags, draw(st.sampled_from(DTYPES)), form)
    for name in draw(st.sets(st.sampled_from(NOISE), max_size=2)):
        columns[name] = typed(draw(marks), draw(st.sampled_from(DTYPES)), form)
    order = draw(st.permutations(list(columns)))
    limit = draw(st.none() | st.integers(1, 5))
    return told, {name: columns[name] for name in order}, form, limit


@pytest.mark.torture
@often
@given(anything())
def test_any_columns_are_read_as_the_table_says_or_refused_where_it_says_so(
    made: tuple[Told, dict[str, Any], str, int | None],
) -> None:
    told, columns, form, limit = made
    expected = plain(told, limit)
    with tempfile.TemporaryDirectory() as folder:
        done = imported(form, columns, CutRules(), folder)
        if done is None and told.T is not None and told.U is None:
            done = imported(form, columns, CutRules(limit, limit is None), folder)
    if expected is None:
        assert done is None
        return
    assert done is not None
    assert transitions(done[0]) == expected
    assert_whole(*done, told.n)


# -- columns that say the truth, some of it: nothing that a file tells is passed over


@dataclass
class Truth:
    """Episodes as they were: lengths and whether each terminated, and the order of the rows.

    `told` are the ends that some column marks; `order` gives each row of the file its step.
    """

    lengths: list[int]
    terminated: list[bool]
    order: list[int]
    families: set[str]
    counted: bool


def column(family: str, truth: Truth, numbers: list[int]) -> list[int]:
    """Return what a column of a family holds for each step, in the order of episodes."""
    found: list[int] = []
    for number, length, ended in zip(numbers, truth.lengths, truth.terminated, strict=True):
        end = [0] * (length - 1) + [1]
        found += {
            "T": [int(ended) * e for e in end],
            "U": [int(not ended) * e for e in end],
            "D": end,
            "L": end,
            "F": end[::-1],
            "E": [number] * length,
            "S": list(range(length)),
        }[family]
    return found


@st.composite
def truthful(draw: st.DrawFn) -> tuple[Truth, dict[str, Any], str]:
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    k, n = len(lengths), sum(lengths)
    ended = draw(st.lists(st.booleans(), min_size=k, max_size=k))
    families = draw(st.sets(st.sampled_from("TUDLFES"), min_size=1))
    form = draw(st.sampled_from(["csv", "npz"]))
    turns = draw(st.sampled_from(["in order", "days", "in turn"]))
    numbers, order = list(range(k)), list(range(n))
    if turns == "days":
        day = draw(st.integers(2, 3))
        numbers = [i % day for i in numbers]
    if turns == "in turn":
        families |= {"E"}
        step = [(i, e) for e, length in enumerate(lengths) for i in range(length)]
        order = sorted(range(n), key=lambda row: step[row])
    truth = Truth(lengths, ended, order, families, draw(st.booleans()))
    columns = {name: values[order] for name, values in rows_of(n).items()}
    for family in sorted(families):
        values = [column(family, truth, numbers)[row] for row in order]
        dtype = draw(st.sampled_from(DTYPES[1:] if family in "ES" else DTYPES))
        columns[draw(st.sampled_from(NAMES[family]))] = typed(values, dtype, form)
    if form == "npz" and truth.counted:
        name = draw(
            st.sampled_from(["total_episodes", "num_trajs", "episode_lengths", "meta/ends"])
        )
        lists = {"episode_lengths": lengths, "meta/ends": np.cumsum(lengths)}
        columns[name] = np.array(lists.get(name, k))
    return truth, columns, form


def told_ends(truth: Truth) -> list[bool]:
    """Return for each episode whether a column of the file tells that it ended there."""
    places = truth.families & {*"DLFE", *("S" if max(truth.lengths) > 1 else "")}
    return [
        bool(places or ("T" in truth.families and end) or ("U" in truth.families and not end))
        for end in truth.terminated
    ]


@pytest.mark.torture
@often
@given(truthful())
def test_nothing_that_a_log_tells_is_passed_over(
    made: tuple[Truth, dict[str, Any], str],
) -> None:
    truth, columns, form = made
    with tempfile.TemporaryDirectory() as folder:
        done = imported(form, columns, CutRules(max_episode_steps=50), folder)
        done = done or imported(form, columns, CutRules(), folder)
    if done is None:
        both = {*"TU"} <= truth.families and truth.order == sorted(truth.order)
        empty = max(truth.lengths) == 1 and not any(truth.terminated)
        assert empty or "E" in truth.families or not both
        return
    n = sum(truth.lengths)
    assert_whole(*done, n)
    stops = np.cumsum(truth.lengths)
    last = {int(stop) - 1: k for k, stop in enumerate(stops)}
    told = told_ends(truth)
    for row, following, terminated in transitions(done[0]):
        if terminated:
            assert row in last
            assert truth.terminated[last[row]]
            continue
        assert following == row + 1
        assert row not in last or not told[last[row]]
    if "T" in truth.families:
        assert int(done[0].terminated.sum()) == sum(truth.terminated)
    if truth.counted and "npz" in form and any(len(np.shape(v)) == 0 for v in columns.values()):
        assert truth.order != sorted(truth.order) or all(told[:-1])
