"""The returns of a policy beside those of its data: played, else estimated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from baq_cli.data.episodes import Episodes
from baq_cli.engine.checkpoints.restore import evaluate_checkpoint, load_agent, spaces_of
from baq_cli.engine.estimation.estimate import (
    STEPS,
    discount_of,
    discounted_returns,
    fitted_q,
)
from baq_cli.engine.evaluation.environment import environment_of, limited
from baq_cli.engine.updates.device import on_threads
from baq_cli.envs.ref import EnvChoice, EnvRef
from baq_cli.errors import EnvironmentMismatch
from baq_cli.runs.events import Note, Observer
from baq_cli.units import amount

Array = npt.NDArray[Any]
NOT_PLAYED = "nothing was played, as asked"
NOWHERE = "the checkpoint was made without an environment"


@dataclass(frozen=True)
class Question:
    """What advice is asked about.

    episodes: to play, a seed; number: which start states. play: whether the policy may act in an
    environment; where it doesn't, `steps` gradient steps of fitted Q evaluation estimate what it is
    worth. margin: the share of the scale of returns that counts as no difference.
    """

    dataset: str
    checkpoint: Path | None
    choice: EnvChoice
    episodes: int
    number: int
    margin: float
    play: bool = True
    steps: int = STEPS


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a comparison rests on.

    policy `[S, n]` by seed and data `[K]`: raw returns of episodes. lengths: the policy's, in
    env_steps `[S, n]`, and environment: where it played. Where it didn't, `estimated` says why:
    returns are discounted then, and episode k of both begins alike.
    """

    policy: Array
    data: Array
    lengths: Array | None = None
    environment: EnvRef | None = None
    estimated: str | None = None

    @property
    def unit(self) -> str:
        """What the numbers are."""
        return "discounted raw return, estimated" if self.estimated else "raw return"


def gather(
    question: Question,
    checkpoint: Path,
    document: Mapping[str, Any],
    episodes: Episodes,
    observer: Observer,
) -> Evidence:
    """Let a checkpoint's policies play where they may and can; else estimate what they are worth.

    Raises EnvironmentMismatch where spaces differ, or the environment that was asked for can't be
    made; one that the checkpoint alone names is done without.
    """
    there = f"dataset '{episodes.dataset_id}'"
    spaces_of(dict(document)).check_same(episodes.spaces, f"the checkpoint {checkpoint}", there)
    env, why = _environment(question, checkpoint, document, observer)
    if env is not None:
        how = question.episodes, question.number, observer
        returns, lengths, _ = evaluate_checkpoint(checkpoint, env, *how)
        return Evidence(returns, episodes.returns, lengths, env)
    steps = question.steps
    observer(
        Note(f"{why}: estimating from {episodes.dataset_id} ({amount(steps, 'gradient step')})")
    )
    agent, inputs, _ = load_agent(checkpoint)
    with on_threads(1):  # batches are too small for several to share
        fitted = fitted_q(agent, episodes, inputs)
        fitted.fit(agent.act, steps)
        values = fitted.values()
    returns = discounted_returns(episodes, discount_of(agent))
    return Evidence(values, returns, estimated=why)


def _environment(
    question: Question, checkpoint: Path, document: Mapping[str, Any], observer: Observer
) -> tuple[EnvRef | None, str]:
    """Return where the policy is to play, or None and why it isn't."""
    asked = question.choice.id is not None
    if not question.play:
        return None, NOT_PLAYED
    if document["env_id"] is None and not asked:
        return None, NOWHERE
    env = environment_of(document, question.choice, f"the checkpoint {checkpoint}")
    known = None if document["env_id"] is None else EnvRef.of_document(document)
    try:
        return limited(env, observer, known), ""
    except EnvironmentMismatch as error:
        if asked:
            raise
        return None, str(error).rstrip(".")
