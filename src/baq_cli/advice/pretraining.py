"""Which methods to pre-train first on a dataset, and why: by what it is like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from baq_cli.advice.traits import BROAD, NARROW, Traits
from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import METHODS, make_agent
from baq_cli.bench.cost import costs

MOST = 4
"""Methods that a reason names: the cheapest of those that it speaks for."""


@dataclass(frozen=True)
class Candidate:
    """Methods of one kind, the cheapest update first, and why the data speak for them."""

    kind: str
    methods: tuple[str, ...]
    why: str


def candidates(traits: Traits) -> list[Candidate]:
    """Return what to pre-train, the first first.

    A kind is one of the families that methods say they are of, or what they say of the columns and
    the actions that they learn from. What several reasons speak for stands once.
    """
    found: dict[str, Candidate] = {}
    for kind, why in _reasons(traits):
        if kind not in found:
            found[kind] = Candidate(kind, _of_kind(kind), why)
    return [each for each in found.values() if each.methods]


def _reasons(traits: Traits) -> Iterator[tuple[str, str]]:
    if not traits.rewarded:
        yield "imitation", "every reward is the same: there is nothing to prefer, only to imitate"
        return
    one_behaviour = traits.alike and traits.deterministic
    if one_behaviour:
        yield "imitation", "one behaviour of one quality, which cloning can repeat"
    if traits.sparse:
        why = f"rewards are sparse ({traits.reward_changes:.1%} of them tell of anything): "
        yield RETURNS, why + "returns of whole episodes reach where bootstrapping is slow"
        yield CHUNKS, why + "several actions at once carry values further back"
    if traits.action_coverage <= NARROW or one_behaviour:
        yield (
            "policy constraint",
            "actions fill little of their range: values beside them are guesses",
        )
    elif not traits.alike:
        yield "policy constraint", "episodes of mixed quality: values choose among their actions"
        yield "adaptive constraint", "episodes of mixed quality: the constraint follows it"
    if traits.action_coverage >= BROAD and not traits.deterministic:
        yield "ensemble", "actions cover their range: values can be learned all over it"
        yield "conservative critic", "actions cover their range: a penalty has what to compare with"
    yield "policy constraint", "a safe first choice on any data"
    yield "imitation", "the floor that the others must beat"


RETURNS, CHUNKS = "learns from returns", "chunks of actions"
"""Kinds that are no families: a method says so by a column that it reads, and by its `chunk`."""


def _of_kind(kind: str) -> tuple[str, ...]:
    methods = [method for method in METHODS.values() if method.learns_offline]
    if kind == RETURNS:
        names = [m.name for m in methods if "mc_return" in _agent(m).data_columns]
    elif kind == CHUNKS:
        names = [m.name for m in methods if _agent(m).chunk > 1]
    else:
        names = [m.name for m in methods if m.family == kind]
    cost = costs(names)
    return tuple(sorted(names, key=lambda name: cost[name].gradient_step or 0.0))[:MOST]


def _agent(method: type[Agent]) -> Agent:
    spec = Spec((0,), 1, 1, device=torch.device("meta"))
    return make_agent(method.name, method.Config(), spec, "offline")
