"""What a person sees while a run goes on."""

from __future__ import annotations

import io
import re
from functools import partial

import numpy as np
import pytest
from rich.console import Console

from baq_cli.cli.plot import MOST_CELLS, text_plot
from baq_cli.cli.progress import counter_cells, counters, describe, watch, watch_cells
from baq_cli.cli.results import print_card, print_table, show_evaluation
from baq_cli.cli.screen import Screen
from baq_cli.runs.events import Evaluated, Note, Progress
from baq_cli.units import amount


def test_successes_are_told_apart_where_a_tenth_would_hide_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Returns of sparse rewards lie between 0 and 1; those of others keep their tenth."""
    returns = np.repeat([[0.0, 1.0], [1.0, 0.0]], [13, 7], axis=1)  # 7 and 13 of 20
    assert "return 0.500 ± 0.212 over 2 seeds" in describe(Evaluated("online", 2, returns))
    assert "return 500.0 ± 212.1" in describe(Evaluated("online", 2, 1_000 * returns))
    show_evaluation(
        {"seeds": [0, 1], "algo": "iql"}, returns, np.ones_like(returns), "Maze", as_json=False
    )
    table, said = capsys.readouterr().out.rsplit("iql on Maze", 1)
    assert said == ": return 0.500 ± 0.212 over 2 seeds\n"
    assert [line.split()[1:3] for line in table.splitlines()[2:4]] == [
        ["0.350", "0.477"],
        ["0.650", "0.477"],
    ]


def test_a_rising_curve_rises_from_one_eighth_to_the_top() -> None:
    lines = text_plot([0, 100], [-200.0, 0.0], "env_steps", columns=22, height=4).splitlines()
    plotted = [line.split("┤")[1] for line in lines[:4]]
    assert plotted[0][-1] == "█"
    assert plotted[3][0] == "▁"
    heights = [sum(row[column] != " " for row in plotted) for column in range(16)]
    assert heights == sorted(heights)
    assert lines[0].startswith("   0 ┤")
    assert lines[3].startswith("-200 ┤")
    assert lines[4].split() == ["0", "100", "env_steps"]


def test_a_flat_curve_is_drawn() -> None:
    assert "▁" in text_plot([0, 1], [5.0, 5.0], "gradient_steps", columns=80)


def test_an_evaluation_names_its_mean_spread_and_counts() -> None:
    returns = np.array([[1.0, 3.0], [5.0, 7.0]])
    line = describe(Evaluated("online", 2_000, returns))
    assert line == "online    2,000 env_steps: return 4.0 ± 2.8 over 2 seeds (2 episodes each)"


def test_one_thing_is_said_in_the_singular() -> None:
    assert [amount(n, "step") for n in (0, 1, 2, 1200)] == [
        "0 steps",
        "1 step",
        "2 steps",
        "1,200 steps",
    ]
    assert "(1 episode each)" in describe(Evaluated("online", 2, np.array([[1.0], [5.0]])))
    estimated = Evaluated("offline", 2, np.array([[1.0]]), estimated=True)
    assert "(at the dataset's start states: 1)" in describe(estimated)


def test_counters_name_their_units_rate_and_time_left() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(counters([counter_cells(Progress("offline", 50, 100, 50, 25.0, 2.0))], 120))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "50 / 100 gradient_steps" in said
    assert "25 updates/s" in said
    assert "0:00:02 left" in said


@pytest.mark.parametrize("width", [200, 80, 60, 40])
def test_a_curve_is_no_wider_than_its_terminal(width: int) -> None:
    lines = text_plot([0, 20_000], [-1234.0, 8.0], "gradient_steps", width).splitlines()
    assert max(map(len, lines)) == min(width, len("-1234 ┤") + MOST_CELLS)


@pytest.mark.parametrize(
    ("width", "said"),
    [
        (120, ["offline", "50 / 100 gradient_steps", "25 updates/s", "0:00:02 left", "UTD 1.00"]),
        (80, ["offline", "50 / 100 gradient_steps", "25 updates/s", "0:00:02 left", "UTD 1.00"]),
        (64, ["offline", "50 / 100 gradient_steps", "25 updates/s", "0:00:02 left"]),
        (40, ["50 / 100 gradient_steps", "0:00:02 left"]),
        (24, ["50 / 100 gradient_steps"]),
    ],
)
def test_counters_are_left_out_where_a_terminal_has_no_room_for_them(
    width: int, said: list[str]
) -> None:
    console = Console(file=io.StringIO(), width=width)
    cells = counter_cells(Progress("offline", 50, 100, 50, 25.0, 2.0, utd=1.0))
    console.print(counters([cells], width))
    (line,) = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [part.strip() for part in re.split("  +|━+", line) if part.strip("╸╺ ")] == said


@pytest.mark.parametrize("width", [120, 40])
def test_cells_side_by_side_keep_their_names_whole_in_any_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("baq_cli.cli.progress.Screen", partial(Screen, width=width))
    monkeypatch.setattr(Screen, "is_terminal", True)
    names = [f"baq/pendulum/medium-v0: {method}" for method in ("iql", "td3_bc")]
    with watch_cells("two cells") as observe:
        for name in names:
            observe(name, Progress("online", 12_345, 20_000, 50, 25.0, 2.0))
    shown = capsys.readouterr().err
    for said in (*names, "12,345 / 20,000 env_steps"):
        assert said in shown


def test_without_a_terminal_there_is_a_line_an_evaluation_and_none_for_progress(capsys) -> None:
    with watch("iql") as observer:
        observer(Progress("offline", 1, 2, 1, 1.0, 1.0))
        observer(Evaluated("offline", 2, np.zeros((1, 1))))
        observer(Note("saved"))
    captured = capsys.readouterr()
    assert captured.out == "", "progress goes to stderr"
    assert [line[9:14] for line in captured.err.splitlines()] == ["iql", "offli", "saved"]


def test_a_strangers_words_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets are markup to Rich: some would be swallowed, others an error."""
    words = "logs of [/tmp/arm], pip install 'baq-cli[robotics]' [bold]"
    print_table([{"about": words}])
    print_card({"description": words})
    assert capsys.readouterr().out.count(words) == 2
