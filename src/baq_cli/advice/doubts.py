"""What speaks against leaning on a comparison of a policy with its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from baq_cli.advice.evidence import Evidence
from baq_cli.advice.regimes import REGIMES, Comparison
from baq_cli.advice.traits import Traits
from baq_cli.data.episodes import Episodes
from baq_cli.engine.checkpoints.document import BEHAVIOR
from baq_cli.envs.making import limit_of

FEW_EPISODES = 10
"""With fewer of them an interval is too narrow to lean on."""


def doubts(
    evidence: Evidence,
    document: Mapping[str, Any],
    episodes: Episodes,
    traits: Traits,
    by_seed: Mapping[int, Comparison],
) -> list[str]:
    """Return every doubt, in words, what weighs most first."""
    return [
        *_of_the_estimate(evidence),
        *_of_the_environment(evidence, episodes),
        *_of_counts(evidence),
        *_of_lengths(evidence, episodes),
        *_of_seeds(by_seed),
        *_of_rewards(traits),
        *_of_the_checkpoint(document, episodes),
    ]


def _of_the_estimate(evidence: Evidence) -> Iterator[str]:
    if evidence.estimated:
        yield (
            f"{evidence.estimated}: the policy's return is an estimate, by fitted Q evaluation on "
            "these data"
        )
        yield (
            "the intervals of an estimate hold the chance in episodes, not how wrong its critics "
            "are: they are least to be trusted where the policy does what the data never did"
        )


def _of_the_environment(evidence: Evidence, episodes: Episodes) -> Iterator[str]:
    if not same_task(evidence, episodes):
        yield (
            f"the policy played in {evidence.environment}, the data are of {episodes.origin.env}: "
            "their returns may not measure the same"
        )


def same_task(evidence: Evidence, episodes: Episodes) -> bool:
    """Return whether a policy played what the data are of, as far as both are known."""
    here, there = evidence.environment, episodes.origin.env
    return here is None or there is None or (here.id, here.args) == (there.id, there.args)


def _of_counts(evidence: Evidence) -> Iterator[str]:
    sides = {"the policy's": evidence.policy.shape[1], "the data's": len(evidence.data)}
    for whose, count in sides.items():
        if count < FEW_EPISODES and not (evidence.estimated and whose == "the policy's"):
            yield f"{count} of {whose} episodes are few: intervals from so few are too narrow"


def _of_lengths(evidence: Evidence, episodes: Episodes) -> Iterator[str]:
    """Doubt returns of episodes that are cut elsewhere than the environment cuts them.

    A log may lack the last step of an episode, whose successor nobody saw.
    """
    cut = episodes.cut_after
    limit = limit_of(evidence.environment) if evidence.environment else None
    if cut is None or limit is None or cut in (limit, limit - 1) or evidence.lengths is None:
        return
    if evidence.lengths.max() > min(limit, cut) or cut > limit:
        yield (
            f"the data's longest episodes are cut after {cut:,} steps, the policy's after "
            f"{limit:,}: returns over other numbers of steps are not the same thing"
        )


def _of_seeds(by_seed: Mapping[int, Comparison]) -> Iterator[str]:
    kinds = {seed: found.regime for seed, found in by_seed.items() if found.regime}
    seeds = {regime: [s for s, found in kinds.items() if found == regime] for regime in REGIMES}
    said = [f"{kind}: {', '.join(map(str, which))}" for kind, which in seeds.items() if which]
    if len(said) > 1:
        yield (
            f"seeds are in different regimes ({'; '.join(said)}): their mean describes none of "
            "them, and each may be fine-tuned in its own way"
        )


def _of_rewards(traits: Traits) -> Iterator[str]:
    if not traits.rewarded:
        yield "every reward is the same: returns compare nothing but lengths"
    if traits.sparse:
        yield (
            "rewards are sparse: a policy of a low return may come far, and explore well, all the "
            "same"
        )


def _of_the_checkpoint(document: Mapping[str, Any], episodes: Episodes) -> Iterator[str]:
    trained = document.get("dataset")
    if trained is not None and not trained_on(document, episodes):
        yield (
            f"the checkpoint was trained on {trained['id']}, not on these data: this says which of "
            "both is better, not what it learned from them"
        )
    if document.get("kind") == BEHAVIOR:
        yield (
            "a behaviour file holds a policy alone: fine-tuning needs the checkpoint that it was "
            "made from"
        )


def trained_on(document: Mapping[str, Any], episodes: Episodes) -> bool:
    """Return whether a checkpoint's dataset is this one, by its content."""
    return bool((document.get("dataset") or {}).get("sha256") == episodes.content_hash)
