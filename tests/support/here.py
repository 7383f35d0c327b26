"""The command line in this process, in a folder that holds all that variables move."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import pytest

from baq_cli.cli.main import main
from support.odd_envs import STEADY

FOLDERS = {
    **{"MINARI_DATASETS_PATH": "minari", "BAQ_CACHE": "cache", "HOME": "home", "TMPDIR": "tmp"},
}
SMALL = (
    "threads=1 evaluation.episodes=1 evaluation.background=false shared.hidden=[8] "
    "shared.batch_size=4 iql.policy_cosine=false"
)
TRAIN = f"--env {STEADY} --gradient-steps 4 evaluation.every_gradient_steps=2 {SMALL}"
TUNE = f"--env-steps 12 evaluation.every_env_steps=6 {SMALL}"


def run_baq(*words: str) -> tuple[int, str, str]:
    """Run `baq` in this process; return its status and what it wrote to stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["baq", *words])
        with pytest.raises(SystemExit) as end:
            main()
    return int(end.value.code or 0), out.getvalue(), err.getvalue()


def settle(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have everything that a user's variables move in a folder, which becomes the current one."""
    for variable, name in FOLDERS.items():
        (folder / name).mkdir(exist_ok=True)
        patch.setenv(variable, str(folder / name))
    patch.chdir(folder)
