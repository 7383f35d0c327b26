"""The reference datasets: which behaviours each mixes, and how much of it there is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path


@dataclass(frozen=True)
class ReferenceDataset:
    """A dataset that the tool builds itself, the same wherever the simulator is the same.

    Each behaviour file gives an equal share of `transitions` (environment steps); `seed` decides
    start states and action noise.
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


_PENDULUM = ("pendulum-40", "pendulum-45", "pendulum-50", "pendulum-100")
_HOPPER = ("hopper-10", "hopper-30", "hopper-60", "hopper-100")

SUITE = {
    reference.dataset_id: reference
    for reference in (
        ReferenceDataset(
            "baq/pendulum/medium-v0", ("pendulum-40",), 20_000, "one half-trained policy"
        ),
        ReferenceDataset(
            "baq/pendulum/replay-v0", _PENDULUM, 20_000, "a mix over four stages of training"
        ),
        ReferenceDataset(
            "baq/hopper/medium-v0", ("hopper-30",), 100_000, "one half-trained policy"
        ),
        ReferenceDataset(
            "baq/hopper/replay-v0", _HOPPER, 100_000, "a mix over four stages of training"
        ),
    )
}
