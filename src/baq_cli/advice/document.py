"""The one document that advice is: everything it rests on, and what follows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from baq_cli.advice.doubts import doubts, same_task, trained_on
from baq_cli.advice.evidence import Evidence, Question, gather
from baq_cli.advice.following import Continued, follow
from baq_cli.advice.pretraining import candidates
from baq_cli.advice.regimes import Comparison, compare
from baq_cli.advice.traits import Traits, scale_of_returns, traits_of
from baq_cli.bootstrap import Interval
from baq_cli.data.episodes import Episodes
from baq_cli.data.minari.folder import open_minari
from baq_cli.engine.checkpoints.folder import load_agent_file
from baq_cli.engine.collection.datasets import open_dataset
from baq_cli.envs.making import as_registered
from baq_cli.envs.ref import EnvRef
from baq_cli.envs.scores import Reference, known_reference, stored
from baq_cli.runs.events import Observer
from baq_cli.surroundings import in_shell

Document = dict[str, Any]
NEAR_RANDOM = 10.0
"""A normalised score up to which there is little in a policy that could be lost."""
RECORD = (
    "the rule named the better kind of fine-tuning in 45 of its authors' 63 cases, a neighbouring "
    "one in 15, the opposite in 3 (Li, Ni, Sun, Bacon 2025, arXiv 2510.01460)"
)


def advise(question: Question, observer: Observer) -> Document:
    """Answer a question: look at the data, play the policy where there is one, compare, conclude.

    No policy is trained, nothing is written or changed. Raises DataError for a dataset or a
    checkpoint that can't be read, EnvironmentMismatch for spaces that differ.
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
    return about | _of_policy(question, question.checkpoint, episodes, traits, reference, observer)


def _facts(traits: Traits) -> Document:
    said = ("rewarded", "sparse", "deterministic", "alike")
    return asdict(traits) | {name: getattr(traits, name) for name in said}


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


def _of_policy(
    question: Question,
    checkpoint: Path,
    episodes: Episodes,
    traits: Traits,
    reference: Reference | None,
    observer: Observer,
) -> Document:
    saved = load_agent_file(checkpoint).document
    evidence = gather(question, checkpoint, saved, episodes, observer)
    if evidence.estimated or not same_task(evidence, episodes):
        reference = None
    scale, scale_of = scale_of_returns(evidence.data, reference)
    how = question.margin * scale, evidence.estimated is not None
    found = compare(evidence.policy, evidence.data, *how)
    by_seed = {
        seed: compare(evidence.policy[[row]], evidence.data, *how)
        for row, seed in enumerate(saved["seeds"])
    }
    scores = _scores(found, reference)
    little = scores is not None and max(scores["policy"], scores["data"]) < NEAR_RANDOM
    continued = _continued(question, checkpoint, saved, episodes)
    return {
        "checkpoint": str(checkpoint),
        "algo": saved["algo"],
        "phase": saved["phase"],
        **_compared(evidence, found),
        "margin": {"value": found.margin, "share": question.margin, "of": scale_of},
        "seeds": [_of_seed(seed, each) for seed, each in by_seed.items()],
        "scores": scores,
        **follow(found, continued, little),
        "doubts": doubts(evidence, saved, episodes, traits, by_seed),
        "rule": RECORD,
    }


def _continued(
    question: Question, checkpoint: Path, saved: Document, episodes: Episodes
) -> Continued:
    known = None if saved["env_id"] is None else EnvRef.of_document(saved)
    env, same = question.choice.over(known), trained_on(saved, episodes)
    same_env = known is not None and env == known
    return Continued(checkpoint, saved, episodes.dataset_id, same, env, same_env)


def _compared(evidence: Evidence, found: Comparison) -> Document:
    played = evidence.environment
    return {
        "environment": None if played is None else str(played),
        "unit": evidence.unit,
        "estimated": evidence.estimated is not None,
        "policy": _side(found.policy, found.policy_std, found.policy_episodes),
        "data_return": _side(found.data, found.data_std, found.data_episodes),
        "difference": _interval(found.difference),
        "probability_policy_above_data": found.above,
        "chances": found.chances,
        "regime": found.regime,
        "possible": found.possible,
        "more_episodes": found.more_episodes,
    }


def _side(found: Interval, std: float, episodes: int) -> Document:
    return _interval(found) | {"std": _known(std), "episodes": episodes}


def _interval(found: Interval) -> Document:
    return {"mean": found.value, "low": _known(found.low), "high": _known(found.high)}


def _known(number: float) -> float | None:
    return number if number == number else None


def _of_seed(seed: int, found: Comparison) -> Document:
    about = {"probability_policy_above_data": found.above, "regime": found.regime}
    return {"seed": seed, **_interval(found.policy), **about}


def _scores(found: Comparison, reference: Reference | None) -> Document | None:
    if reference is None:
        return None
    return {
        "reference": reference.label,
        "source": reference.source,
        "policy": float(reference.normalize(found.policy.value)),
        "data": float(reference.normalize(found.data.value)),
    }
