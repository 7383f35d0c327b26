"""The reference datasets: which behaviours each mixes, and how much of it there is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path


@dataclass(frozen=True)
class Trained:
    """A policy that this tool trained, shipped as a small file; its name says for how long."""

    name: str

    @property
    def path(self) -> Path:
        folder = resources.files("baq_cli.data") / "behaviors"
        return Path(str(folder / f"{self.name}.safetensors"))


@dataclass(frozen=True)
class Uniform:
    """Actions drawn uniformly between their bounds."""

    name: str = "random"


@dataclass(frozen=True)
class Waypoints:
    """The maze controller of `data/waypoints.py`, noise of 0.5 on its actions.

    A share of its actions is uniformly random instead.
    """

    random_share: float

    @property
    def name(self) -> str:
        return f"waypoints-{round(100 * self.random_share)}"


Behavior = Trained | Uniform | Waypoints


@dataclass(frozen=True)
class ReferenceDataset:
    """A dataset that the tool builds itself, the same wherever the simulator is the same.

    Each behaviour gives an equal share of `transitions` (environment steps); `seed` decides start
    states and action noise; a `deterministic` one takes its policies' modes. `threads` is part of
    what decides the data: the order of a sum depends on it, and a chaotic simulator on every last
    bit.
    """

    dataset_id: str
    env_id: str
    behaviors: tuple[Behavior, ...]
    transitions: int
    about: str
    seed: int = 0
    threads: int = 1
    deterministic: bool = False


_ABOUT = {
    "random": "uniformly random actions",
    "medium": "one policy, not yet at its best",
    "replay": "stages of training, in equal shares",
    "expert": "the mode of one policy, at the end of training",
}
_MAZE_ABOUT = {
    "random": "uniformly random actions",
    "medium": "a waypoint controller, nine in ten of its actions random",
    "replay": "a waypoint controller with four shares of random actions, in equal parts",
    "expert": "a waypoint controller",
}


def _task(
    task: str,
    env_id: str,
    about: dict[str, str],
    behaviors: dict[str, tuple[Behavior, ...]],
    transitions: int = 100_000,
    threads: int = 1,
) -> list[ReferenceDataset]:
    return [
        ReferenceDataset(
            f"baq/{task}/{kind}-v0",
            env_id,
            mixed,
            transitions,
            about[kind],
            threads=threads,
            deterministic=kind == "expert" and isinstance(mixed[0], Trained),
        )
        for kind, mixed in {"random": (Uniform(),), **behaviors}.items()
    ]


def _trained(
    task: str, env_id: str, medium: str, replay: str, expert: str, **how: int
) -> list[ReferenceDataset]:
    """Return the datasets of a task's trained policies, by thousands of environment steps."""
    behaviors: dict[str, tuple[Behavior, ...]] = {
        "medium": (Trained(f"{task}-{medium}k"),),
        "replay": tuple(Trained(f"{task}-{stage}k") for stage in replay.split()),
        "expert": (Trained(f"{task}-{expert}k"),),
    }
    return _task(task, env_id, _ABOUT, behaviors, **how)


_MAZE: dict[str, tuple[Behavior, ...]] = {
    "medium": (Waypoints(0.9),),
    "replay": (Waypoints(1.0), Waypoints(0.95), Waypoints(0.9), Waypoints(0.8)),
    "expert": (Waypoints(0.0),),
}

SUITE = {
    reference.dataset_id: reference
    for reference in (
        *_trained("pendulum", "Pendulum-v1", "8", "7 8 9 10", "20", transitions=20_000, threads=2),
        *_trained("hopper", "Hopper-v5", "140", "40 100 130 140", "150", threads=2),
        *_trained("doublependulum", "InvertedDoublePendulum-v5", "10", "6 8 10 12", "20"),
        *_trained("halfcheetah", "HalfCheetah-v5", "40", "20 30 40 60", "90"),
        *_trained("walker2d", "Walker2d-v5", "170", "50 80 130 170", "330"),
        *_trained(
            *("invertedpendulum", "InvertedPendulum-v5", "12", "2 8 12 13", "15"),
            transitions=20_000,
        ),
        *_trained("reacher", "Reacher-v5", "7", "2 4 7 10", "30", transitions=20_000),
        *_trained("swimmer", "Swimmer-v5", "45", "10 40 45 50", "80"),
        *_trained(
            *("lunarlander", "LunarLanderContinuous-v3", "70", "20 60 70 80", "90"),
            transitions=50_000,
        ),
        *_trained(
            *("bipedalwalker", "BipedalWalker-v3", "170", "100 160 170 180", "200"),
            transitions=50_000,
        ),
        *_task("pointmaze-umaze", "PointMaze_UMaze-v3", _MAZE_ABOUT, _MAZE),
        *_task("pointmaze-medium", "PointMaze_Medium-v3", _MAZE_ABOUT, _MAZE),
    )
}
