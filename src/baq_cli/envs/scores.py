"""What a return is measured against: the returns of a random and of an expert policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from baq_cli.envs.ref import EnvRef, named
from baq_cli.errors import UsageError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Reference:
    """Raw returns of a random and an expert policy, and where they come from.

    `label` goes beside every score that is normalised by it.
    """

    label: str
    random: float
    expert: float
    source: str

    def normalize(self, returns: Array | float) -> Any:
        """Return 100·(R − random) / (expert − random): 0 is random, 100 is the expert."""
        return 100.0 * (returns - self.random) / (self.expert - self.random)

    def scale(self, spread: float) -> float:
        """Return a standard deviation in normalised units: spreads know no offset."""
        return 100.0 * spread / abs(self.expert - self.random)


D4RL_SOURCE = (
    "D4RL's published constants, measured on the environments of 2020 (mujoco-py); applied to "
    "today's environments they are a convention"
)
_D4RL = {
    "HalfCheetah": (-280.178953, 12135.0),
    "Hopper": (-20.272305, 3234.3),
    "Walker2d": (1.629008, 4592.3),
    "Ant": (-325.6, 3879.7),
    "AntMaze": (0.0, 1.0),
    "AdroitHandPen": (96.262799, 3076.8331017826877),
    "AdroitHandDoor": (-56.512833, 2880.5693087298737),
    "AdroitHandHammer": (-274.856578, 12794.134825156867),
    "AdroitHandRelocate": (-6.425911, 4233.877797728884),
}
"""By the environment's name without its version; AntMaze stands for all mazes and goals."""


def published(env_id: str) -> Reference | None:
    """Return D4RL's reference for an environment of today with the same task, or None."""
    name, _, version = env_id.rpartition("-v")  # with a namespace or a module it is one's own
    if not version.isdigit():
        return None
    family = "AntMaze" if name.startswith("AntMaze_") else name
    if family not in _D4RL:
        return None
    random, expert = _D4RL[family]
    return Reference(f"D4RL {family}", random, expert, D4RL_SOURCE)


MEASURED_SOURCE = (
    "measured by this tool: uniformly random actions and the suite's best behaviour, 100 "
    "episodes each"
)
_MEASURED = {
    "Pendulum-v1": (-1302.79, -154.39),
    "InvertedDoublePendulum-v5": (48.04, 9356.64),
}


def known_reference(env: EnvRef | str) -> Reference | None:
    """Return D4RL's reference for an environment, else this tool's own for its suite, or None.

    One that is made with arguments or a limit of its own is another task, and has none.
    """
    env = named(env)
    if env != EnvRef(env.id):
        return None
    if env.id in _MEASURED:
        return Reference(f"baq {env.id}", *_MEASURED[env.id], MEASURED_SOURCE)
    return published(env.id)


def stored(metadata: dict[str, Any], dataset_id: str) -> Reference | None:
    """Return the reference kept with a Minari dataset, or None."""
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if not (isinstance(low, int | float) and isinstance(high, int | float)) or low == high:
        return None
    told = metadata.get("baq_reference")
    source = told.get("source") if isinstance(told, dict) else None
    source = source or "recorded with the dataset"
    return Reference(dataset_id, float(low), float(high), str(source))


def published_or_refuse(env_id: str) -> Reference:
    """Return D4RL's reference for an environment.

    Raises UsageError when there is none, with the command that measures one.
    """
    found = published(env_id)
    if found is None:
        raise UsageError(
            f"D4RL published no reference scores for {env_id}: measure them with "
            f"'baq data score-reference {env_id} --checkpoint PATH --dataset ID', then name that "
            "dataset as the reference"
        )
    return found
