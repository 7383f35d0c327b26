"""Evaluations that step nothing, and the process that makes them beside a run."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import pytest

from baq_cli.engine.evaluation.background import PROCESS
from baq_cli.engine.evaluation.evaluator import Evaluator


@contextmanager
def nothing_played() -> Iterator[None]:
    """Let evaluations step no environment: of each episode the return is 0, and the length 1."""

    def played(evaluator: Evaluator, *given: Any) -> Any:
        shape = len(evaluator.seeds), evaluator.episodes
        return np.zeros(shape), np.ones(shape, np.int64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "evaluate_unless", played)
        yield


def evaluation_process() -> BaseProcess:
    """Return the one process of this one's in which evaluations are made."""
    (found,) = (each for each in multiprocessing.active_children() if each.name == PROCESS)
    return found
