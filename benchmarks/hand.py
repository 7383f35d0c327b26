"""What a person's hand is worth: Hi-ORS on a sparse maze, with somebody who steps in, and without.

Pre-trains on a dataset of a waypoint controller nine in ten of whose actions are random, then
fine-tunes twice from the same checkpoint. In the second run a controller that knows the way stands
for the person: it takes over where the policy stays in one place, for a while, then hands back.
Prints returns of the policy alone, and how much was taken over; exits 1 unless the run with the
person ends above the other. Needs pip install 'baq-cli[robotics]'.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from baq_cli.data.waypoints import WaypointController
from baq_cli.hand import Decision, Moment, Setting
from baq_cli.runs.folder import read_metrics

DATASET = "baq/pointmaze-{maze}/medium-v0"
STUCK_STEPS, STUCK_DISTANCE, GOAL_DISTANCE = 40, 0.5, 0.5
"""Within so many steps the policy has moved no further than that, and is not at its goal."""
HELP_STEPS = 40
SPARSE = ("--env-arg", "continuing_task=false", "hi_ors.first_threshold=0.5")
"""An episode ends with a reward of 1 at the goal, and is accepted then."""
SMALL = (
    "evaluation.episodes=20",
    "device=cpu",
    "threads=1",
    "evaluation.background=false",
    "env_workers=false",
)


class StepsIn:
    """Steers through the maze for a while where a policy has stayed in one place."""

    def __init__(self, setting: Setting):
        self._controller = WaypointController(setting.env)
        self._places: deque[Any] = deque(maxlen=STUCK_STEPS)
        self._left = 0

    def decide(self, moment: Moment) -> Decision:
        """Act where the policy is stuck, and for some steps from there."""
        if moment.step == 0:
            self._places.clear()
            self._left = 0
        place, goal = moment.obs[0:2], moment.obs[2:4]
        if np.linalg.norm(goal - place) <= GOAL_DISTANCE:
            self._left = 0
            self._places.clear()
        elif self._left == 0 and self._is_stuck(place):
            self._left = HELP_STEPS
            self._places.clear()
        self._places.append(place)
        if self._left == 0:
            return Decision()
        self._left -= 1
        obs = moment.obs[None].astype(np.float64)
        return Decision(self._controller(obs, np.zeros((1, 2)))[0])

    def _is_stuck(self, place: Any) -> bool:
        if len(self._places) < STUCK_STEPS:
            return False
        return (
            float(max(np.linalg.norm(place - before) for before in self._places)) < STUCK_DISTANCE
        )


def baq(*words: object) -> None:
    """Run a command, with this folder on Python's path."""
    here = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "baq_cli.cli.main", *map(str, words)]
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": here}
    )


def returns(run: Path) -> Any:
    """Return the mean return of each seed at each evaluation of the online phase, `[E, S]`."""
    rows = [row for row in read_metrics(run) if row["phase"] == "online"]
    at = sorted({int(row["env_steps"]) for row in rows})
    return np.array(
        [[float(r["return_mean"]) for r in rows if int(r["env_steps"]) == step] for step in at]
    )


def shares(run: Path) -> list[float]:
    """Return the share of steps taken over between one evaluation and the next."""
    course = json.loads((run / "manifest.json").read_text())["intervention"]["course"]
    steps = np.array([point[0] for point in course], dtype=float)
    taken = np.array([np.mean(point[1]) for point in course])
    return list(np.diff(taken) / np.diff(steps))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/hand"))
    parser.add_argument("--maze", choices=("umaze", "medium"), default="medium")
    parser.add_argument("--gradient-steps", type=int, default=1_000)
    parser.add_argument("--env-steps", type=int, default=6_000)
    parser.add_argument("--seeds", default="3")
    arguments = parser.parse_args()
    out, started = arguments.out, time.monotonic()
    common = ("--seeds", arguments.seeds)
    data = DATASET.format(maze=arguments.maze)
    steps = arguments.gradient_steps
    method = ("shared.hidden=[128,128]", f"evaluation.every_gradient_steps={steps}")
    offline = ("--gradient-steps", steps, *common, *method, *SMALL)
    baq("pretrain", "--algo", "hi_ors", "--dataset", data, "--out", out / "offline", *offline)
    runs = {"alone": (), "with a person": ("--intervene", "hand:StepsIn")}
    ends = {}
    for name, who in runs.items():
        folder = out / name.replace(" ", "-")
        watched = f"evaluation.every_env_steps={arguments.env_steps // 5}"
        online = ("--env-steps", arguments.env_steps, *common, *SPARSE, *SMALL, watched)
        baq("finetune", "--checkpoint", out / "offline", "--out", folder, *online, *who)
        found = returns(folder)
        ends[name] = found[-1]
        print(f"\n{name}: mean return of {found.shape[1]} seeds at each evaluation")
        print("  " + "  ".join(f"{value:.2f}" for value in found.mean(1)))
        print(f"  at the end, by seed: {[round(float(value), 2) for value in found[-1]]}")
        if who:
            print("  share of steps taken over, between evaluations:")
            print("  " + "  ".join(f"{share:.1%}" for share in shares(folder)))
    above = bool(ends["with a person"].mean() > ends["alone"].mean())
    print(f"\n{(time.monotonic() - started) / 60:.1f} min")
    print(f"{'holds' if above else 'MISSED'}: with a person it ends above the same without")
    return int(not above)


if __name__ == "__main__":
    raise SystemExit(main())
