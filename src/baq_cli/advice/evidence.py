"""The returns of a policy beside those of its data, and what speaks against comparing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.episodes import Episodes
from baq_cli.engine.checkpoints.restore import evaluate_checkpoint, spaces_of
from baq_cli.engine.evaluation.environment import environment_of, limited
from baq_cli.envs.ref import EnvChoice, EnvRef
from baq_cli.runs.events import Observer

Array = npt.NDArray[Any]
FEW_EPISODES = 10
"""With fewer of them an interval is too narrow to lean on."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a comparison rests on.

    policy `[S, n]` by seed and data `[K]`: raw returns of episodes, discounted where they are
    `estimated`; then episode k of both begins alike. environment: where the policy played.
    """

    policy: Array
    data: Array
    estimated: bool
    environment: EnvRef | None
    doubts: tuple[str, ...]

    @property
    def unit(self) -> str:
        """What the numbers are."""
        return "discounted raw return, estimated" if self.estimated else "raw return"


def played(
    checkpoint: Path,
    document: Mapping[str, Any],
    episodes: Episodes,
    choice: EnvChoice,
    count: int,
    number: int,
    observer: Observer,
) -> Evidence:
    """Play `count` episodes a seed with a checkpoint's policies, beside the data's episodes.

    Raises EnvironmentMismatch where there is no such environment, or its spaces are others.
    """
    asked = environment_of(document, choice, f"the checkpoint {checkpoint}")
    env = limited(asked, observer, EnvRef.of_document(document))
    returns, lengths, _ = evaluate_checkpoint(checkpoint, env, count, number, observer)
    doubts = [*_of_counts(returns, episodes), *_of_lengths(lengths, episodes, env)]
    return Evidence(returns, episodes.returns, False, env, tuple(doubts))


def check_same_spaces(checkpoint: Path, document: Mapping[str, Any], episodes: Episodes) -> None:
    """Raise EnvironmentMismatch unless a checkpoint acts in the dataset's spaces."""
    there = f"dataset '{episodes.dataset_id}'"
    spaces_of(dict(document)).check_same(episodes.spaces, f"the checkpoint {checkpoint}", there)


def _of_counts(returns: Array, episodes: Episodes) -> list[str]:
    sides = {
        "the policy's": returns.shape[1],
        "the data's": len(episodes.lengths),
    }
    return [
        f"{count} of {whose} episodes are few: intervals from so few are too narrow"
        for whose, count in sides.items()
        if count < FEW_EPISODES
    ]


def _of_lengths(lengths: Array, episodes: Episodes, env: EnvRef) -> list[str]:
    """Doubt returns of episodes that are cut elsewhere than the environment cuts them."""
    limit, cut = env.max_episode_steps, episodes.cut_after
    ran_on = float((lengths == lengths.max()).mean())
    if cut is None or np.array_equal(lengths, np.full_like(lengths, cut)):
        return []
    longest = int(limit or lengths.max())
    if longest == cut or (limit is None and ran_on < 0.5):
        return []
    return [
        f"the data's longest episodes are cut after {cut:,} steps, the policy's after {longest:,}: "
        "returns of episodes of other lengths are not the same thing"
    ]
