"""The one document that advice is: everything it rests on, and what follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from baq_cli.advice.evidence import Evidence, check_same_spaces, played
from baq_cli.advice.following import Continued, follow
from baq_cli.advice.pretraining import candidates
from baq_cli.advice.regimes import REGIMES, Comparison, compare
from baq_cli.advice.traits import Traits, scale_of_returns, traits_of
from baq_cli.data.episodes import Episodes
from baq_cli.data.minari.folder import open_minari
from baq_cli.engine.checkpoints.folder import load_agent_file
from baq_cli.engine.collection.datasets import open_dataset
from baq_cli.envs.making import as_registered
from baq_cli.envs.ref import EnvChoice
from baq_cli.envs.scores import Reference, known_reference, stored
from baq_cli.report.bootstrap import Interval
from baq_cli.runs.events import Observer
from baq_cli.surroundings import in_shell

Document = dict[str, Any]
NEAR_RANDOM = 10.0
"""A normalised score up to which there is little in a policy that could be lost."""
PAPER = "Li, Ni, Sun, Bacon 2025, arXiv 2510.01460"
RECORD = (
    "the rule named the better kind of fine-tuning in 45 of its authors' 63 cases, a neighbouring "
    f"one in 15, the opposite in 3 ({PAPER})"
)


@dataclass(frozen=True)
class Question:
    """What advice is asked about.

    episodes: to play, a seed; number: which start states. margin: the share of the scale of returns
    that counts as no difference. play: whether the policy may act in an environment.
    """

    dataset: str
    checkpoint: Path | None
    choice: EnvChoice
    episodes: int
    number: int
    margin: float
    play: bool = True


def advise(question: Question, observer: Observer) -> Document:
    """Answer a question: look at the data, play the policy where there is one, compare, conclude.

    Nothing is trained, written or changed. Raises DataError for a dataset or checkpoint that can't
    be read, EnvironmentMismatch for spaces that differ.
    """
    episodes = open_dataset(question.dataset, observer)
    metadata = open_minari(question.dataset).metadata
    env = episodes.origin.env
    reference = stored(metadata, episodes.dataset_id)
    reference = reference or (None if env is None else known_reference(as_registered(env)))
    traits = traits_of(episodes, metadata, reference)
    about = {
        "dataset": episodes.dataset_id,
        "data_environment": None if env is None else str(as_registered(env)),
        "data": _facts(traits),
    }
    if question.checkpoint is None:
        return about | _of_data_alone(question, traits)
    return about | _of_policy(question, episodes, traits, reference, observer)


def _facts(traits: Traits) -> Document:
    said = ("rewarded", "sparse", "deterministic", "alike")
    return asdict(traits) | {name: getattr(traits, name) for name in said}


# -- data alone


def _of_data_alone(question: Question, traits: Traits) -> Document:
    margin, found = question.margin * traits.scale, candidates(traits)
    return {
        "checkpoint": None,
        "superior_above": traits.return_mean + margin,
        "inferior_below": traits.return_mean - margin,
        "pretrain": [asdict(each) for each in found],
        "commands": _pretraining(question.dataset, found[0].methods[0]),
    }


def _pretraining(dataset: str, method: str) -> list[str]:
    """Return the commands that pre-train a method, and ask again with what came of it."""
    out = str(Path("runs") / method)
    return [
        in_shell(["baq", "pretrain", "--algo", method, "--dataset", dataset, "--out", out]),
        in_shell(["baq", "advise", "--dataset", dataset, "--checkpoint", out]),
    ]


# -- a policy beside its data


def _of_policy(
    question: Question,
    episodes: Episodes,
    traits: Traits,
    reference: Reference | None,
    observer: Observer,
) -> Document:
    checkpoint = question.checkpoint
    assert checkpoint is not None
    document = load_agent_file(checkpoint).document
    check_same_spaces(checkpoint, document, episodes)
    evidence = _evidence(question, checkpoint, document, episodes, observer)
    scale, scale_of = traits.scale, traits.scale_of
    if evidence.estimated or reference is None:
        scale, scale_of = scale_of_returns(evidence.data, None)
    margin = question.margin * scale
    found = compare(evidence.policy, evidence.data, margin, evidence.estimated)
    by_seed = {
        seed: compare(evidence.policy[[row]], evidence.data, margin, evidence.estimated)
        for row, seed in enumerate(document["seeds"])
    }
    scores = None if evidence.estimated else _scores(found, reference)
    little = scores is not None and max(scores["policy"], scores["data"]) < NEAR_RANDOM
    trained = document["dataset"] or {}
    same = trained.get("sha256") == episodes.content_hash
    env = evidence.environment
    continued = Continued(checkpoint, document, episodes.dataset_id, same, env)
    doubts = [
        *evidence.doubts,
        *_of_origin(document, same),
        *_of_seeds(by_seed),
        *_of_rewards(traits),
    ]
    return {
        "checkpoint": str(checkpoint),
        "algo": document["algo"],
        "phase": document["phase"],
        "environment": None if evidence.environment is None else str(evidence.environment),
        "unit": evidence.unit,
        "estimated": evidence.estimated,
        "comparison": _compared(found) | {"margin_share": question.margin, "margin_of": scale_of},
        "seeds": [_of_seed(seed, each) for seed, each in by_seed.items()],
        "scores": scores,
        "regime": found.regime,
        "possible": found.possible,
        **follow(found, continued, little),
        "doubts": doubts,
        "rule": RECORD,
    }


def _evidence(
    question: Question,
    checkpoint: Path,
    document: Mapping[str, Any],
    episodes: Episodes,
    observer: Observer,
) -> Evidence:
    how = question.choice, question.episodes, question.number, observer
    return played(checkpoint, document, episodes, *how)


def _compared(found: Comparison) -> Document:
    return {
        "policy": _interval(found.policy) | {"std": found.policy_std},
        "data": _interval(found.data) | {"std": found.data_std},
        "difference": _interval(found.difference),
        "policy_episodes": found.policy_episodes,
        "data_episodes": found.data_episodes,
        "margin": found.margin,
        "probability_policy_above_data": found.above,
        "chances": found.chances,
        "more_episodes": found.more_episodes,
    }


def _interval(found: Interval) -> Document:
    known = found.low == found.low
    return {
        "mean": found.value,
        "low": found.low if known else None,
        "high": found.high if known else None,
    }


def _of_seed(seed: int, found: Comparison) -> Document:
    return {
        "seed": seed,
        **_interval(found.policy),
        "probability_policy_above_data": found.above,
        "regime": found.regime,
    }


def _scores(found: Comparison, reference: Reference | None) -> Document | None:
    if reference is None:
        return None
    return {
        "reference": reference.label,
        "source": reference.source,
        "policy": float(reference.normalize(found.policy.value)),
        "data": float(reference.normalize(found.data.value)),
    }


# -- doubts


def _of_origin(document: Mapping[str, Any], same: bool) -> list[str]:
    trained = document["dataset"]
    if trained is None or same:
        return []
    return [
        f"the checkpoint was trained on {trained['id']}, not on these data: this says whether they "
        "are better than the policy, not whether it learned from them"
    ]


def _of_seeds(by_seed: Mapping[int, Comparison]) -> list[str]:
    kinds = {seed: found.regime for seed, found in by_seed.items() if found.regime}
    if len(set(kinds.values())) < 2:
        return []
    said = [
        f"{regime}: {', '.join(str(seed) for seed, found in kinds.items() if found == regime)}"
        for regime in REGIMES
        if regime in kinds.values()
    ]
    return [
        f"seeds are in different regimes ({'; '.join(said)}): their mean describes none of them"
    ]


def _of_rewards(traits: Traits) -> list[str]:
    if not traits.sparse:
        return []
    return [
        "rewards are sparse: a policy of a low return may come far, and explore well, all the same"
    ]
