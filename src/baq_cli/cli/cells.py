"""What commands share that run cells: flags, the data of their tasks, and how far they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baq_cli.cli import options as opt

if TYPE_CHECKING:
    from baq_cli.launch.cells import Cell
    from baq_cli.launch.places import Place

STATUS, FAILED = "status", "failed"


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
    """Print how far cells are: a table a task, and below them what is known of failures."""
    from baq_cli.cli.results import print_json, print_table
    from baq_cli.cli.say import say
    from baq_cli.launch.standing import standing_of

    found = [standing_of(cell) for cell in cells]
    if json:
        print_json([standing.as_dict() for standing in found])
        return
    for task in dict.fromkeys(standing.task for standing in found):
        rows = [standing.as_row() for standing in found if standing.task == task]
        told = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
        say(f"{task}\n")
        print_table([{name: row[name] for name in told} for row in rows])
        say("")
    for standing in found:
        if standing.stage in (FAILED, "waiting") and standing.error is not None:
            say(f"{standing.stage}: {standing.task}, {standing.method}: {standing.error}")
