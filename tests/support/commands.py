"""Commands with which a user trains and compares within a moment, and fixtures that gave them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.advice import Terminal

LOG, ENV = "me/short/log-v0", "Short-v0"
SMALL = [
    *("threads=1", "evaluation.episodes=1", "evaluation.background=false"),
    *("shared.hidden=[8,8]", "shared.batch_size=8"),
]
ONLINE = ["--env-steps", "6"]
SMALLEST = ["--gradient-steps", "2", "--env-steps", "4", "--seeds", "1", "--workers", "1", *SMALL]


@pytest.fixture
def log(terminal: Terminal, short_env: str) -> str:
    """A dataset of the short environment."""
    words = ("--env", ENV, "--behavior", "random", "--env-steps", "30")
    terminal.done("data", "collect", LOG, *words)
    return LOG


def pretrain(algo: str, out: Path, *words: str) -> list[str]:
    """Return the words of a pre-training of a few steps."""
    given = ["pretrain", "--algo", algo, "--gradient-steps", "4", "--out", str(out)]
    return [*given, "--dataset", LOG, *SMALL, *words]


def scratch(out: Path, *words: str) -> list[str]:
    """Return the words of a fine-tuning from scratch, without an environment or a method."""
    return ["finetune", "--out", str(out), *ONLINE, *SMALL, *words]


def finetune(run: Path, out: Path, *words: str) -> list[str]:
    """Return the words of a fine-tuning of a few steps."""
    given = ["finetune", "--checkpoint", str(run), "--out", str(out), *ONLINE]
    return [*given, *SMALL[:3], *words]


@pytest.fixture
def run(terminal: Terminal, log: str, tmp_path: Path) -> Path:
    """A pre-trained IQL."""
    terminal.done(*pretrain("iql", tmp_path / "run"))
    return tmp_path / "run"


def compare(out: Path, *words: str, algos: str = "iql", dataset: str | None = LOG) -> list[str]:
    """Return the words of a comparison of one seed, in one process."""
    given = [] if dataset is None else ["--dataset", dataset]
    return ["compare", "--algos", algos, "--out", str(out), *given, *SMALLEST, *words]


@pytest.fixture
def compared(terminal: Terminal, log: str, tmp_path: Path) -> Path:
    """A finished comparison of one cell."""
    terminal.done(*compare(tmp_path / "compared"))
    return tmp_path / "compared"
