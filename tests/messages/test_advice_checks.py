"""What the checks of a dataset advise is done here to the letter, and helps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from baq_cli.data.minari.write import write_minari
from support.advice import Terminal, follows, quoted
from support.recordings import plain_recording

ID, NEW = "made/first-v0", "me/new-v0"
BOUNDS = ["--action-low=-1", "--action-high=1"]


def log(path: Path, **changes: np.ndarray) -> Path:
    """Write a log of two episodes of four steps."""
    rng = np.random.default_rng(0)
    columns = {
        "observations": rng.normal(size=(8, 2)),
        "actions": rng.uniform(-1, 1, (8, 1)),
        "rewards": rng.normal(size=8),
        "terminals": np.arange(8) % 4 == 3,
        "episode": np.arange(8) // 4,
    }
    np.savez(path, **(columns | changes))  # type: ignore[arg-type]
    return path


@follows("{} are NaN, infinite or beyond float32 in {} of {} rows, first in episode {} at step {} ")
def test_without_the_episode_that_is_not_finite_a_log_is_saved(
    terminal: Terminal, tmp_path: Path
) -> None:
    rewards = np.where(np.arange(8) == 5, np.nan, 1.0)
    path = log(tmp_path / "log.npz", rewards=rewards)
    said = terminal.told("data", "import", path, "--id", NEW, *BOUNDS, status=3)
    assert said.startswith(f"error: {path}: ")
    assert "first in episode 1 at step 1 (both counted from 0, in the order of the data)" in said
    mended = log(tmp_path / "mended.npz", rewards=np.nan_to_num(rewards))
    terminal.done("data", "import", mended, "--id", "me/mended-v0", *BOUNDS)
    with np.load(path) as columns:
        whole = {name: values[columns["episode"] != 1] for name, values in columns.items()}
    terminal.done("data", "import", log(path, **whole), "--id", NEW, *BOUNDS)


@follows("import that with --clip-actions or the right bounds")
def test_actions_outside_are_clipped_on_a_way_through_a_file(
    terminal: Terminal, tmp_path: Path
) -> None:
    made = plain_recording()
    write_minari(ID, replace(made, actions=made.actions * 0 + 9.0))
    status, out, _ = terminal.run("data", "check", ID)
    assert status == 3
    command = [tmp_path / "file.npz" if word == "FILE" else word for word in quoted(out, "baq da")]
    terminal.done(*command)
    terminal.done("data", "import", tmp_path / "file.npz", "--clip-actions", "--id", NEW)
    terminal.done("data", "check", NEW)


@follows("Import the log again without its episode numbers (--ends unused=COLUMN), and the flags")
def test_flags_inside_an_episode_decide_without_its_numbers(
    terminal: Terminal, tmp_path: Path
) -> None:
    path = log(tmp_path / "log.npz", episode=np.zeros(8, int), timeouts=np.zeros(8, bool))
    words = ["data", "import", path, "--id", NEW, *BOUNDS]
    said = terminal.told(*words, status=3)
    assert "(--ends unused=COLUMN)" in said
    assert "2 episodes" in terminal.done(*words, "--ends", "unused=episode")


@follows("--env-arg is of an environment: name it with --env ID")
def test_an_argument_is_given_with_its_environment(terminal: Terminal, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = log(tmp_path / "log.npz", observations=rng.normal(size=(8, 3)))
    words = ["data", "import", path, "--id", NEW, "--env-arg", "g=5.0"]
    assert "name it with --env ID" in terminal.told(*words)
    terminal.done(*words, "--env", "Pendulum-v1")
