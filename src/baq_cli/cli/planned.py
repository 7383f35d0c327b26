"""What a comparison would run, on which data, and about how long that takes."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from baq_cli.cli.say import say
from baq_cli.units import amount

if TYPE_CHECKING:
    from baq_cli.data.episodes import Episodes
    from baq_cli.launch.cells import Cell
    from baq_cli.runs.events import Event
    from baq_cli.units import Phase


def show_plan(cells: list[Cell], out: Path, workers: int | None, json: bool) -> None:
    """Print the cells and about how long each takes, from a short measurement.

    Datasets that would be built first are named and not built.
    """
    from baq_cli.cli.progress import watch
    from baq_cli.cli.results import print_json, print_table
    from baq_cli.engine.collection.unbuilt import seconds_to_build, unbuilt
    from baq_cli.launch.estimate import estimate, makespan
    from baq_cli.launch.known import is_finished
    from baq_cli.launch.local import share_of_threads, slots_for
    from baq_cli.units import UNITS, in_words

    slots = slots_for(len(cells), workers)
    with watch("measuring") as observer:
        building = {
            reference.dataset_id: seconds_to_build(reference)
            for reference in unbuilt(dict.fromkeys(cell.task for cell in cells))
        }
        cells, data = open_tasks(cells, out, lambda _, event: observer(event), made_up=building)
        seconds = [
            0.0 if is_finished(cell) else estimate(cell, data[cell.task], share_of_threads(slots))
            for cell in cells
        ]
    total = makespan(sorted(seconds, reverse=True), slots)  # the dearest start first
    total += sum(building.values())  # one after the other, before any cell
    if json:
        rows = [
            {"task": c.task, "method": c.method, "seconds": s, "recipe": c.recipe}
            for c, s in zip(cells, seconds, strict=True)
        ]
        to_build = [{"dataset": name, "seconds": spent} for name, spent in building.items()]
        plan = {"cells": rows, "datasets": to_build, "workers": slots, "seconds": total}
        print_json(plan)
        return
    print_table(
        [
            {
                "task": cell.task,
                "method": cell.method,
                "seeds": str(len(cell.recipe["seeds"])),
                **{unit: steps_of(cell, phase) for phase, unit in UNITS.items()},
                "about": "finished" if not spent else in_words(spent),
            }
            for cell, spent in zip(cells, seconds, strict=True)
        ]
    )
    for name, spent in building.items():
        say(
            f"{name} would be built first: about {in_words(spent)}; cells are timed on made-up data"
        )
    say(f"{amount(len(cells), 'cell')}, {slots} at once: about {in_words(total)}")


def steps_of(cell: Cell, phase: Phase) -> str:
    """Return how many steps a cell makes in a phase, as a table shows it: – where it has none."""
    from baq_cli.agents.registry import METHODS
    from baq_cli.units import UNITS

    method = METHODS[cell.recipe["algo"]]
    learns = method.learns_offline if phase == "offline" else method.learns_online
    return f"{cell.recipe[UNITS[phase]]:,}" if learns else "–"


def tell_how_long(
    cells: list[Cell],
    costs: list[float],
    data: dict[str, Episodes],
    workers: int | None,
    watcher: Callable[[str, Event], None],
) -> None:
    """Tell about how long cells take in all on this machine, unless that is short."""
    from baq_cli.launch.estimate import about, makespan
    from baq_cli.launch.local import share_of_threads, slots_for
    from baq_cli.runs.events import Note
    from baq_cli.units import in_words

    slots = slots_for(len(cells), workers)
    seconds = about(cells, costs, data, share_of_threads(slots))
    if seconds is not None:
        count = f"{amount(len(cells), 'cell')}, {slots} at once"
        whole = in_words(makespan(seconds, slots))
        watcher("compare", Note(f"{count}: about {whole} in all, evaluations included"))


def open_tasks(
    cells: Sequence[Cell],
    out: Path,
    watch: Callable[[str, Event], None],
    made_up: Container[str] = (),
) -> tuple[list[Cell], dict[str, Episodes]]:
    """Open each task's dataset, so that it is built once and not by each worker.

    Made-up data stand in for the reference datasets of `made_up`, which are not built. Returns the
    cells with their environments, checked against those that `out` holds.
    """
    from baq_cli.data.suite import SUITE
    from baq_cli.engine.collection.datasets import open_dataset
    from baq_cli.engine.collection.unbuilt import standing_in
    from baq_cli.launch.cell_runs import beside
    from baq_cli.launch.known import check_known

    ends = {cell.task: cell.recipe.get("end_at_reward") for cell in cells}
    said: Callable[[Event], None] = lambda event: watch("data", event)  # noqa: E731
    data = {
        task: standing_in(SUITE[task]) if task in made_up else open_dataset(task, said, reward)
        for task, reward in ends.items()
    }
    cells = [beside(cell, data[cell.task]) for cell in cells]
    check_known(cells, out)
    return cells, data
