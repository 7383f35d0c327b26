"""Two commands, pre-training and fine-tuning, as processes that can be killed at any moment.

`python -m support.killing` imports everything once and forks a child for each order that it
reads, a JSON object a line: `kind` of run, `out`, and at which call to the disk the child kills
itself (null: never). It prints the child's process id, and then how that ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from baq_cli.engine.checkpoints import document as claims
from baq_cli.engine.evaluation.background import Setting, SnapshotEvaluator
from baq_cli.engine.experience import store, sumtree
from baq_cli.engine.phases import evaluations
from baq_cli.engine.phases import run as engine_run
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Observer
from baq_cli.untrusted import TRUST_VARIABLE
from support.bad_disk import bad_disk
from support.odd_envs import STEADY
from support.recordings import ID
from support.runs import execute, recipe_of
from support.spared import import_ahead, wait_for_no_disk
from support.timed_envs import TIMED

STEPS, EVERY = 20, 7
KINDS = ("baq", "ring")


class Later(SnapshotEvaluator):
    """Evaluates when it is waited for, as one beside may; there is no process to start."""

    in_background = True

    def __init__(self, setting: Setting, observer: Observer):
        del observer  # no process can be lost
        super().__init__(setting)


def recipe(kind: str) -> Recipe:
    """Return a recipe of both phases.

    BAQ has side models, priorities and columns of its own. `ring` writes over its oldest rows,
    fills returns in behind, owes updates, and has evaluations under way when it saves.
    """
    ring = kind == "ring"
    watched = {"episodes": 1, "background": ring}
    watched |= {"every_gradient_steps": EVERY, "every_env_steps": EVERY}
    place = {"dataset": ID, "env": STEADY, "evaluation": watched}
    method: dict[str, Any] = {"warmup_env_steps": 4}
    method |= {"capacity": 11, "cql_actions": 2} if ring else {"behavior_hidden": [8, 8]}
    steps = {"gradient_steps": STEPS, "env_steps": STEPS, "keep_checkpoints": 2}
    return recipe_of("cal_ql" if ring else "baq", method, **place, **steps, overlap=ring)


def both_phases(kind: str, out: Path) -> None:
    """Do what a shell script of two commands with --resume does."""
    store.BLOCK_ROWS = vars(claims)["BLOCK_ROWS"] = sumtree.FAN = 4
    engine_run.METRICS_EVERY = 3
    vars(evaluations)["BackgroundEvaluator"] = Later
    execute(recipe(kind), out / "offline", resume=True)
    execute(recipe(kind), out / "online", resume=True, source=out / "offline")


def on_the_clock(out: Path) -> None:
    """Step a robot for `$STEPS` at 100 Hz, from where it is."""
    watched = {"episodes": 1, "every_env_steps": 40}
    control = {"hz": 100, "publish_every_updates": 3}
    run = {"env": TIMED, "seeds": [0], "control": control, "evaluation": watched}
    steps = {"env_steps": int(os.environ["STEPS"]), "keep_checkpoints": 2}
    execute(recipe_of("sac", {"warmup_env_steps": 10}, **run, **steps), out, resume=True)


def _child(kind: str, out: Path, kill_at: int | None, told: dict[str, str]) -> None:
    status = 1
    try:
        os.environ.update(told)
        if kind == "clocked":
            on_the_clock(out)
            os._exit(0)
        with bad_disk(out, kill_at, "killed") as disk:
            both_phases(kind, out)
        (out / "calls").write_text(str(len(disk.asked)))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _serve() -> None:
    wait_for_no_disk()
    import_ahead()
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _child(*(order["kind"], Path(order["out"]), order["kill_at"], order.get("told", {})))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


class Processes:
    """Starts them, one after the other."""

    def __enter__(self) -> Processes:
        command = [sys.executable, "-m", "support.killing"]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", TRUST_VARIABLE), "1")
        path = os.pathsep.join(p for p in sys.path if p)
        self._server = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | threads | {"PYTHONPATH": path},
        )
        return self

    def run(
        self, kind: str, out: Path, kill_at: int | None = None, after: float | None = None
    ) -> bool:
        """Run both phases in a folder; return whether the process was killed.

        `kill_at` is a call to the disk, `after` a time in seconds.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        out.mkdir(exist_ok=True)
        order = {"kind": kind, "out": str(out), "kill_at": kill_at}
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        child = int(self._server.stdout.readline())
        timer = threading.Timer(after or 0.0, os.kill, (child, signal.SIGKILL))
        if after is not None:
            timer.start()
        status = int(self._server.stdout.readline())
        timer.cancel()
        assert status in (0, -signal.SIGKILL), f"the process ended with {status}"
        return status != 0

    def begin(self, kind: str, out: Path, told: dict[str, str]) -> int:
        """Run in a folder, with variables of its environment; return its process's id."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        out.mkdir(exist_ok=True)
        order = {"kind": kind, "out": str(out), "kill_at": None, "told": told}
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def ended(self) -> int:
        """Wait until that process has ended; return its status."""
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())

    def __exit__(self, *_: Any) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()


if __name__ == "__main__":
    _serve()
