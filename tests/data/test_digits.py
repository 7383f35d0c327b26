"""Digits that float32 loses of a dataset are measured, named, and made up for as advised."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.data.checks import content_findings
from baq_cli.data.digits import BLOCK_ROWS, losses_of
from baq_cli.data.exchange import import_file, save_arrays
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.logs.mapping import parse_mapping
from baq_cli.data.minari.folder import open_minari
from baq_cli.data.minari.read import load_episodes, read_episodes
from baq_cli.data.minari.write import write_minari
from support.advice import follows
from support.recordings import few, plain_recording

Array = np.ndarray[Any, Any]
ID = "me/rover/log-v0"
ROWS = 400
LENGTHS = (99, 99, 99, 99)  # with a final observation each


def walk(start: float, step: float, rows: int = ROWS) -> Array:
    return start + np.cumsum(np.random.default_rng(0).normal(0, step, rows))


def lost(values: Array, lengths: tuple[int, ...] = (ROWS,)) -> Any:
    """Return what float32 leaves of one column, None where nothing is lost."""
    with np.errstate(over="ignore"):
        kept = values.astype(np.float32)
    found = losses_of(values, kept, np.asarray(lengths))
    return found[0] if found else None


# -- what is lost


def test_the_numbers_are_those_of_float32() -> None:
    """Between 2²² and 2²³ float32 has every half: of 0, 0.1, … 9.9 each becomes the nearest."""
    values = 2.0**22 + np.arange(100) / 10
    loss = lost(values, (100,))
    assert (loss.values, loss.left) == (100, 21)
    assert loss.rounding == pytest.approx(0.2)  # of .2, .3, .7 and .8
    assert loss.step == pytest.approx(0.1)
    assert loss.spread == pytest.approx(9.9, rel=0.02)


LOST = {
    "UTM metres": walk(5_412_345.0, 0.05),
    "UTM metres over 5 km": 5_412_345.0 + np.linspace(0, 5_000, ROWS * 20),
    "Unix time": 1_700_000_000.0 + np.arange(ROWS) * 0.1,
    "Unix nanoseconds": 1_700_000_000_000_000_000 + np.arange(ROWS) * 100_000_000,
    "a counter beyond 2²⁴": 2**40 + np.arange(ROWS),
    "an unsigned counter": np.uint64(2**64 - 1) - np.arange(ROWS, dtype=np.uint64),
    "encoder ticks of 32 bits": (2_000_000_000 + 3 * np.arange(ROWS)).astype(np.int32),
    "latitude in degrees": walk(48.137154, 1e-7),
    "without a fix now and then": np.where(np.arange(ROWS) == 200, 0.0, walk(5_412_345.0, 0.05)),
}


@pytest.mark.parametrize("kind", LOST)
def test_a_loss_is_told(kind: str) -> None:
    values = LOST[kind]
    loss = lost(values, (len(values),))
    assert loss is not None
    assert loss.values == len(np.unique(values))
    assert loss.left == len(np.unique(values.astype(np.float32)))


KEPT = {
    "ordinary numbers": np.random.default_rng(0).normal(size=ROWS),
    "with an offset of a hundred spreads": 100 + np.random.default_rng(0).normal(size=ROWS),
    "whole numbers below 2²⁴": (2**24 - ROWS + np.arange(ROWS)).astype(np.int64),
    "numbers that came from float32": (np.float32(5e6) + np.arange(ROWS, dtype=np.float32)).astype(
        np.float64
    ),
    "a constant": np.full(ROWS, 5_412_345.678),
    "sizes of all kinds": 10.0 ** np.random.default_rng(0).uniform(-30, 30, ROWS),
    "one outlier": np.where(np.arange(ROWS) == 5, 1e30, np.random.default_rng(0).normal(size=ROWS)),
    "the noise of double precision": 1 + np.random.default_rng(0).normal(size=ROWS) * 1e-15,
    "slow drift of a wide dimension": np.linspace(-1, 1, ROWS)[np.arange(ROWS) // 2]
    + np.random.default_rng(0).normal(size=ROWS) * 1e-12,
    "at rest but for a push": np.where(np.arange(ROWS) < 350, 0.7, walk(0.7, 0.1))
    + np.random.default_rng(0).normal(size=ROWS) * 1e-11,
    "not a number": np.full(ROWS, np.nan),
    "beyond float32": np.full(ROWS, 1e300) * np.arange(ROWS),
    "below float32": np.arange(ROWS) * 1e-300,
}


@pytest.mark.parametrize("kind", KEPT)
def test_what_keeps_its_digits_is_not_worth_a_word(kind: str) -> None:
    assert lost(KEPT[kind]) is None


def test_goals_that_differ_between_episodes_alone_are_seen() -> None:
    lengths = (8,) * 50
    goals = np.repeat(5_412_345 + np.random.default_rng(0).uniform(0, 2, 50), lengths)
    loss = lost(goals, lengths)
    assert loss.values == 50
    assert loss.left < 10
    assert loss.step > 0.1  # between episodes


def test_jumps_between_episodes_hide_no_loss_inside() -> None:
    starts = np.repeat(np.arange(40) * 1e3, 10)
    assert lost(5e6 + starts + walk(0, 0.01), (10,) * 40) is not None


@given(
    st.sampled_from([1e3, 1e5, 5e6, 1.7e9]),
    st.sampled_from([1e-6, 1e-3, 0.1, 10.0]),
    st.integers(1, 40),
)
@few
def test_a_loss_is_what_a_plain_count_finds(start: float, step: float, length: int) -> None:
    """Float32's spacing against a usual change: far below a tenth nothing is told, far above is."""
    values = walk(start, step, 40 * length)
    spacing = float(np.spacing(np.float32(start)))
    loss = lost(values, (length,) * 40)
    if spacing > 2 * step and step > 1e-11 * start:  # below that it may be double's own noise
        assert loss is not None
    if spacing < step / 100:
        assert loss is None


@pytest.mark.parametrize("rows", [BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 3 * BLOCK_ROWS])
def test_blocks_change_nothing(rows: int) -> None:
    values = np.stack([walk(5e6, 0.05, rows), walk(0, 0.05, rows)], axis=1)
    whole = losses_of(values, values.astype(np.float32), np.array([rows]))
    pieces = losses_of(values, values.astype(np.float32), np.array([7, rows - 8, 1]))
    assert [loss.dimension for loss in whole] == [loss.dimension for loss in pieces] == [0]
    assert (whole[0].values, whole[0].left) == (pieces[0].values, pieces[0].left)


# -- the advice


@pytest.mark.parametrize("kind", LOST)
def test_the_offset_that_is_named_makes_up_for_the_loss(kind: str) -> None:
    values = LOST[kind]
    loss = lost(values, (len(values),))
    assert loss.offset is not None
    whole = values.dtype.kind in "iu"
    shifted = (
        np.array([int(v) - int(loss.offset) for v in values]) if whole else values - loss.offset
    )
    assert lost(shifted, (len(values),)) is None


def test_no_offset_is_named_where_none_helps() -> None:
    """A year in tenths of a second: from its middle on float32 tells every second apart."""
    year = 1_700_000_000.0 + np.arange(ROWS * 20) * 0.1
    year += np.repeat(np.arange(40), ROWS // 2) * 8e5
    loss = lost(year, (ROWS * 20,))
    assert loss is not None
    assert loss.offset is None


# -- where it is told


def in_double(**changes: Any) -> Any:
    space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    rows = sum(LENGTHS) + len(LENGTHS)
    observations = {"": np.stack([walk(0, 1, rows), walk(5_412_345, 0.05, rows)], axis=1)}
    fields = {"observation_space": space, "observations": observations} | changes
    return plain_recording(LENGTHS, **fields)


def digits(findings: Any) -> list[str]:
    assert all(f.level == "warning" for f in findings if f.check == "digits")
    return [f.text for f in findings if f.check == "digits"]


def test_a_stored_dataset_is_measured_as_the_recording_was(folder: Path) -> None:
    rewards = 1e9 + np.random.default_rng(1).normal(size=sum(LENGTHS))
    actions = np.random.default_rng(2).normal(0, 1e-3, (sum(LENGTHS), 2))
    bounds = gym.spaces.Box(-1e6, 3e6, (2,), np.float64)  # their middle isn't 0
    made = in_double(rewards=rewards, actions=actions, action_space=bounds)
    told = digits(content_findings(made.episodes(ID)))
    assert [re.match(r"(\w+): '(.*?)'", text).groups() for text in told] == [  # type: ignore
        ("observations", "observation[1]"),
        ("actions", "action[0]"),
        ("actions", "action[1]"),
        ("rewards", "reward"),
    ]
    write_minari(ID, made)
    assert digits(content_findings(read_episodes(open_minari(ID)))) == told
    assert digits(load_episodes(ID).findings) == told
    assert digits(load_episodes(ID).findings) == told  # from the cache


@follows("Give bounds that are closer to what is used (--action-low and --action-high, and the env")
def test_bounds_as_wide_as_what_is_used_keep_an_actions_digits() -> None:
    actions = np.random.default_rng(2).normal(0, 1e-3, (sum(LENGTHS), 2)).clip(-0.01, 0.01)
    bounds = gym.spaces.Box(-0.01, 1e6, (2,), np.float64)
    assert "Give bounds that are closer" in str(
        digits(content_findings(in_double(actions=actions, action_space=bounds).episodes(ID)))
    )
    bounds = gym.spaces.Box(-0.01, 0.03, (2,), np.float64)
    assert "actions" not in str(
        digits(content_findings(in_double(actions=actions, action_space=bounds).episodes(ID)))
    )


def test_parts_of_a_dict_are_named(folder: Path) -> None:
    box = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    space = gym.spaces.Dict({"imu": box, "gps": box})
    rows = sum(LENGTHS) + len(LENGTHS)
    parts = {
        "gps": np.stack([walk(0, 1, rows), walk(5_412_345, 0.05, rows)], axis=1),
        "imu": np.zeros((rows, 2)),
    }
    made = in_double(observation_space=space, observations=parts)
    [told] = digits(content_findings(made.episodes(ID)))
    assert "'gps[1]'" in told
    write_minari(ID, made)
    assert digits(load_episodes(ID).findings) == [told]


MAPPING = {
    "observation": ["heading", "north"],
    "action": "throttle",
    "reward": "r",
    "episode": "run",
    "action_low": -1,
    "action_high": 1,
}


def log(folder: Path, **changes: Array) -> Path:
    g = np.random.default_rng(0)
    columns = {
        "heading": g.normal(size=ROWS),
        "north": walk(5_412_345, 0.05),
        "throttle": g.uniform(-1, 1, ROWS),
        "r": g.normal(size=ROWS),
        "run": np.arange(ROWS) // 100,
    } | changes
    path = folder / "log.npz"
    np.savez(path, **columns)
    return path


def imported(path: Path, dataset_id: str = ID, **changes: Any) -> list[str]:
    mapping = parse_mapping(MAPPING | changes, "m")
    done = import_file(path, dataset_id, Setting(None, [-1.0], [1.0]), mapping)
    return digits(done.episodes.findings)


def test_an_import_names_the_column_and_the_check_after_it_does_too(folder: Path) -> None:
    [told] = imported(log(folder))
    assert told.startswith("observations: 'north' loses digits in float32")
    assert digits(load_episodes(ID).findings) == [told]


@follows(
    "Subtract {offset} from it in the log and, alike, where a policy will get it from (a gymnasium",
    "No offset makes up for it: leave it out with --mapping, or log it as differences or as sev",
)
def test_following_the_advice_of_an_import_ends_the_warning(folder: Path) -> None:
    year = 1.7e9 + np.arange(ROWS) * 0.1 + np.arange(ROWS) // 100 * 1e7
    [told] = imported(log(folder, north=year), "me/year-v0")
    assert "No offset makes up for it" in told
    assert imported(log(folder, north=year), "me/without-year-v0", observation=["heading"]) == []
    [told] = imported(log(folder))
    offset = float(re.search(r"Subtract (\S+) from", told)[1])  # type: ignore[index]
    assert imported(log(folder, north=walk(5_412_345, 0.05) - offset), "me/shifted-v0") == []
    assert imported(log(folder), "me/without-v0", observation=["heading"]) == []


@follows("Subtract {offset} from every reward, in the log and in the environment alike.")
def test_rewards_are_named_by_their_column(folder: Path) -> None:
    rewards = 1e9 + np.random.default_rng(0).normal(size=ROWS)
    [told] = imported(log(folder, north=walk(0, 1), r=rewards))
    assert told.startswith("rewards: 'r' loses digits")
    assert "Subtract 1000000000 from every reward" in told
    assert imported(log(folder, north=walk(0, 1), r=rewards - 1e9), "me/shifted-v0") == []


def test_names_from_a_strangers_metadata_must_fit(folder: Path) -> None:
    for said in (
        [],
        5,
        {"observations": {"": ["a"]}},
        {"observations": {"": [1, 2]}, "actions": 3},
    ):
        made = replace(in_double(), about={"columns": said})
        [told] = digits(content_findings(made.episodes(ID)))
        assert "'observation[1]'" in told


def test_arrays_from_python_are_measured_too(folder: Path) -> None:
    done = save_arrays(
        ID,
        observations=np.stack([walk(0, 1), walk(1.7e9, 0.1)], axis=1),
        actions=np.random.default_rng(0).uniform(-1, 1, (ROWS, 1)),
        rewards=np.random.default_rng(1).normal(size=ROWS),
        terminated=np.arange(ROWS) % 100 == 99,
        truncated=np.zeros(ROWS, bool),
        action_low=-1.0,
        action_high=1.0,
    )
    assert len(digits(done.episodes.findings)) == 1
