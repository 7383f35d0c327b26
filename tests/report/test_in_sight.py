"""A figure of both phases shows all that came online, whatever the first evaluations offline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from baq_cli.report.curves import Curve
from baq_cli.report.figures import each_figure
from baq_cli.report.in_sight import MARGIN, MOST_TIMES, Sight, in_sight
from baq_cli.units import UNITS, Phase
from support.documents import compared, far_below

SCORES = st.lists(st.floats(-1e4, 1e4), min_size=4, max_size=4)


def curve(phase: Phase, *seeds: list[float]) -> Curve:
    returns = np.array(seeds)
    counters = np.arange(1, returns.shape[1] + 1)
    return Curve("m", phase, UNITS[phase], counters, returns, tuple(range(len(seeds))))


def texts(figure: Figure) -> list[str]:
    found: list[Any] = figure.findobj(Text)
    return [text.get_text() for text in found]


def test_it_is_the_end_of_offline_and_all_of_online_by_hand() -> None:
    curves = [curve("offline", [-900.0, -500.0, 0.0, 10.0]), curve("online", [5.0, -10.0, 30.0])]
    found = in_sight(curves, dataset_mean=20.0)
    assert found == Sight(-10 - MARGIN * 40, 30 + MARGIN * 40, -900.0, 30.0)
    assert (found.down, found.up) == ("↓ −900.0", "")
    assert in_sight(curves, dataset_mean=-900.0) is None, "the dataset's mean is in sight too"
    assert in_sight(curves[:1]) is None, "a figure of one phase shows all"


def test_bands_are_in_sight_and_each_seed_where_it_is_drawn() -> None:
    curves = [curve("offline", [-900.0] + [0.0] * 3, [-900.0] + [0.0] * 3)]
    curves.append(curve("online", *([0.0, end] for end in (0.0, 0.0, 30.0))))
    bands, seeds = in_sight(curves), in_sight(curves, seeds=True)
    assert bands
    assert seeds
    std = np.sqrt(300)
    assert bands.high == pytest.approx(10 + std + MARGIN * 2 * std)
    assert seeds.high == pytest.approx(30 + MARGIN * (20 + std)), "the band is lower at its foot"


def spread(scores: Any, axis: int) -> Any:
    return np.std(scores, axis, ddof=1)


@given(SCORES, SCORES, SCORES, SCORES)
def test_nothing_that_came_online_or_just_before_is_out_of_sight(
    one: list[float], other: list[float], first: list[float], second: list[float]
) -> None:
    curves = [curve("offline", one, other), curve("online", first, second)]
    found = in_sight(curves, seeds=True)
    mean, std = (
        np.array([of([one, other], 0), of([first, second], 0)]) for of in (np.mean, spread)
    )
    bands = np.stack([mean - std, mean + std])
    seeds = np.array([[one, other], [first, second]]).swapaxes(0, 1)
    both = np.concatenate([bands, seeds])
    every, late = both, np.concatenate([both[:, 0, 2:], both[:, 1]], axis=1)
    assert (found is not None) == (np.ptp(every) > MOST_TIMES * np.ptp(late))
    if found:
        assert found.low <= late.min()
        assert late.max() <= found.high
        assert (found.lowest, found.highest) == (every.min(), every.max())
        assert found.down or found.up


@pytest.mark.parametrize("methods", [4, 14])
def test_a_figure_is_cut_there_and_says_how_far_it_goes_on(methods: int) -> None:
    names = [f"m{i}" for i in range(methods)]
    whole = compared(names, ["baq/hopper/medium-v0"], seeds=3, evaluations=11)
    before, after = (next(of for _, of in each_figure(d)) for d in (whole, far_below(whole)))
    low, high = after.axes[0].get_ylim()
    assert low > -2_000
    assert high - low < np.ptp(before.axes[0].get_ylim()), (
        "what was alike looks as it did, or larger"
    )
    assert {axes.get_ylim() for axes in after.axes} == {(low, high)}
    inside = after.axes[0].transAxes.transform([[0, 0], [1, 1]])[:, 1]
    for line in (line for axes in after.axes for line in axes.lines if len(line.get_xdata()) > 2):
        assert line.get_clip_on()
    box = after.axes[0].lines[0].get_clip_box()
    assert (box.y0, box.y1) == pytest.approx(tuple(inside))
    assert [text for text in texts(after) if "↓" in text and "↓ −20,000" not in text] == []
    assert sum("↓ −20,000" in text for text in texts(after)) == 1
    assert not any("↓" in text for text in texts(before))
