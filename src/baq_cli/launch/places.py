"""Where cells run, by the words of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from baq_cli.errors import UsageError, nearest
from baq_cli.launch.drive import Launcher
from baq_cli.launch.local import launcher_for
from baq_cli.surroundings import in_utf8

LAUNCHERS = ("local", "ray", "slurm")


@dataclass(frozen=True)
class Place:
    """A launcher's name and what it is told; None leaves a choice to it.

    `workers` is how many cells run at once, `cpus` and `gpus` what each of them gets on a cluster.
    """

    launcher: str = "local"
    workers: int | None = None
    address: str | None = None
    cpus: int | None = None
    gpus: float | None = None
    slurm: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise UsageError for an unknown launcher, and for what its own doesn't take."""
        if self.launcher not in LAUNCHERS:
            raise UsageError(
                f"--launcher {self.launcher}: {nearest(self.launcher, list(LAUNCHERS))}"
            )
        others = {
            "--address": (self.address is not None, ("ray",)),
            "--slurm": (bool(self.slurm), ("slurm",)),
            "--cpus": (self.cpus is not None, ("ray", "slurm")),
            "--gpus": (self.gpus is not None, ("ray", "slurm")),
        }
        for flag, (given, launchers) in others.items():
            if given and self.launcher not in launchers:
                raise UsageError(f"{flag} needs --launcher {' or '.join(launchers)}")

    def open(self, cells: int, out: Path) -> Launcher:
        """Return the launcher for a number of cells of the comparison in `out`.

        Raises UsageError when a cluster's package is missing, no cluster answers, or it takes no
        such folder.
        """
        if self.launcher != "local" and in_utf8(str(out.absolute())) != str(out.absolute()):
            raise UsageError(
                f"--launcher {self.launcher} takes no folder whose name is not UTF-8, as {out}: "
                "choose another --out, or --launcher local"
            )
        if self.launcher == "ray":
            from baq_cli.launch.ray.launcher import Ray

            return Ray(self.address, self.cpus or 1, self.gpus or 0, self.workers)
        if self.launcher == "slurm":
            from baq_cli.launch.slurm import Slurm, parse_options

            options = parse_options(self.slurm)
            return Slurm(out, self.cpus or 1, self.gpus or 0, options, self.workers)
        return launcher_for(cells, self.workers)
