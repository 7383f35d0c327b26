"""The reference datasets: which behaviours each mixes, and how much of it there is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path


@dataclass(frozen=True)
class ReferenceDataset:
    """A dataset that the tool builds itself, the same wherever the simulator is the same.

    Each behaviour file gives an equal share of `transitions` (environment steps); `seed` decides
    start states and action noise. A behaviour's name ends in the thousands of environment steps it
    was trained for.
    """

    dataset_id: str
    behaviors: tuple[str, ...]
    transitions: int
    about: str
    seed: int = 0

    def files(self) -> list[Path]:
        """Return the behaviours' files in the package."""
        folder = resources.files("baq_cli.data") / "behaviors"
        return [Path(str(folder / f"{name}.safetensors")) for name in self.behaviors]


_PENDULUM = ("pendulum-7k", "pendulum-8k", "pendulum-9k", "pendulum-10k")
_HOPPER = ("hopper-40k", "hopper-100k", "hopper-130k", "hopper-140k")

_PARTLY = "one policy, not yet at its best"
_STAGES = "four stages of training"
_TRAINED = "one policy, at the end of training"

SUITE = {
    reference.dataset_id: reference
    for reference in (
        ReferenceDataset("baq/pendulum/medium-v0", ("pendulum-8k",), 20_000, _PARTLY),
        ReferenceDataset("baq/pendulum/replay-v0", _PENDULUM, 20_000, _STAGES),
        ReferenceDataset("baq/pendulum/expert-v0", ("pendulum-20k",), 20_000, _TRAINED),
        ReferenceDataset("baq/hopper/medium-v0", ("hopper-140k",), 100_000, _PARTLY),
        ReferenceDataset("baq/hopper/replay-v0", _HOPPER, 100_000, _STAGES),
        ReferenceDataset("baq/hopper/expert-v0", ("hopper-150k",), 100_000, _TRAINED),
    )
}
