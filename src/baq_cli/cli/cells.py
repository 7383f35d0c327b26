"""What commands share that run cells: flags, the data of their tasks, and how far they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from baq_cli.cli import options as opt

if TYPE_CHECKING:
    from baq_cli.data.episodes import Episodes
    from baq_cli.launch.cells import Cell
    from baq_cli.launch.places import Place
    from baq_cli.runs.events import Event

STATUS = "status"


@dataclass(frozen=True)
class PhaseFlags:
    """What is said of both phases of every cell, and of their environment."""

    gradient_steps: opt.GradientSteps = None
    env_steps: opt.EnvSteps = None
    env: opt.DatasetsEnv = None
    env_arg: opt.EnvArg = None
    max_episode_steps: opt.MaxEpisodeSteps = None
    device: opt.Device = None


@dataclass(frozen=True)
class PlaceFlags:
    """Where cells run."""

    workers: opt.Workers = None
    launcher: opt.LauncherName = "local"
    address: opt.Address = None
    cpus: opt.Cpus = None
    gpus: opt.Gpus = None
    slurm: opt.Slurm = None

    def named(self) -> Place:
        """Return the place that the flags name."""
        from baq_cli.launch.places import Place

        of_ray_and_slurm = self.cpus, self.gpus, tuple(self.slurm or ())
        return Place(self.launcher, self.workers, self.address, *of_ray_and_slurm)


def show_standing(cells: Sequence[Cell], json: bool) -> None:
    """Print how far cells are."""
    from baq_cli.cli.results import print_json, print_table
    from baq_cli.launch.standing import standing_of

    rows = [standing_of(cell) for cell in cells]
    if json:
        print_json([row.as_dict() for row in rows])
    else:
        print_table([row.as_row() for row in rows])


def open_tasks(
    cells: Sequence[Cell], out: Path, watch: Callable[[str, Event], None]
) -> tuple[list[Cell], dict[str, Episodes]]:
    """Open each task's dataset, so that it is built once and not by each worker.

    Returns the cells with their environments, checked against those that `out` holds.
    """
    from baq_cli.engine.collection.datasets import open_dataset
    from baq_cli.launch.cell_runs import beside
    from baq_cli.launch.matrix import check_known

    ends = {cell.task: cell.recipe.get("end_at_reward") for cell in cells}
    said: Callable[[Event], None] = lambda event: watch("data", event)  # noqa: E731
    data = {task: open_dataset(task, said, reward) for task, reward in ends.items()}
    cells = [beside(cell, data[cell.task]) for cell in cells]
    check_known(cells, out)
    return cells, data
