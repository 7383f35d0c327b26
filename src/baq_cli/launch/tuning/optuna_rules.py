"""What Optuna decides: settings to try next, and when a trial is stopped.

It is told everything anew each time, by trials in order, and keeps nothing: no database and no
file, so that the same trials come to the same decisions, in whatever process.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from baq_cli.errors import UsageError
from baq_cli.recipes.search import Choices, Range, Settings, Space
from baq_cli.untrusted import parse_json

SIGNIFICANT = 6
"""Digits of a proposed number: more than a setting can matter by, few enough to be typed."""
MOST_ASKED = 20
"""How often another setting is asked for where one was tried already."""
MOST_COUNTED = 100_000
"""Settings of a finite space that are gone through for one that wasn't tried."""


@dataclass(frozen=True)
class Known:
    """What is known of a trial: its settings, its scores so far, and its score where it has one.

    Without a score it was pruned; where it has no scores either, it failed, which counts as worse.
    """

    settings: Settings
    scores: tuple[float, ...] = ()
    score: float | None = None


def require_optuna() -> Any:
    """Return Optuna. Raises UsageError, naming the extra, where it isn't installed."""
    try:
        import optuna
    except ImportError as error:
        raise UsageError("baq tune needs Optuna: pip install 'baq-cli[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def propose(space: Space, known: Sequence[Known], count: int, seed: int) -> list[Settings]:
    """Return up to `count` settings to try together, none of which was tried.

    Fewer where a finite space has no more. The same known trials and seed give the same settings.
    """
    optuna = require_optuna()
    number = len(known)
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    with _quietly():
        sampler = optuna.samplers.TPESampler(
            seed=int.from_bytes(digest[:4], "big"), constant_liar=True
        )
        study = optuna.create_study(sampler=sampler, direction="maximize")
        parts = {key: _distribution(optuna, part) for key, part in space.items()}
        for trial in known:
            study.add_trial(_told(optuna, trial, space, parts))
        tried = {_key(trial.settings) for trial in known}
        found: list[Settings] = []
        while len(found) < count:
            settings = _asked(study, space, parts, tried)
            if settings is None:
                break
            tried.add(_key(settings))
            found.append(settings)
    return found


def first_pruned(
    scores: Sequence[float],
    earlier: Sequence[Sequence[float]],
    below: float,
    least_trials: int,
    least_scores: int,
) -> int | None:
    """Return the index of the first score at which a trial is pruned, None where it isn't.

    It is where that score lies below the percentile `below` of `earlier` trials' at the same index.
    """
    optuna = require_optuna()
    pruner = optuna.pruners.PercentilePruner(
        100 - below, n_startup_trials=least_trials, n_warmup_steps=least_scores
    )
    state = optuna.trial.TrialState
    with _quietly():
        study = optuna.create_study(pruner=pruner, direction="maximize")
        for curve in earlier:
            values = dict(enumerate(curve))
            study.add_trial(optuna.trial.create_trial(value=curve[-1], intermediate_values=values))
        for index, score in enumerate(scores):
            # told alone: Optuna would go by the best one, and a policy may have been better once
            now = {index: score}
            trial = optuna.trial.create_trial(state=state.RUNNING, intermediate_values=now)
            if pruner.prune(study, trial):
                return index
    return None


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep what Optuna warns of from the terminal: settings of its own that it may change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _distribution(optuna: Any, part: Range | Choices) -> Any:
    if isinstance(part, Choices):
        return optuna.distributions.CategoricalDistribution([_word(v) for v in part.values])
    kind = "IntDistribution" if part.whole else "FloatDistribution"
    return getattr(optuna.distributions, kind)(part.low, part.high, log=part.log)


def _word(value: Any) -> str:
    return json.dumps(value)


def _key(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True)


def _told(optuna: Any, trial: Known, space: Space, parts: dict[str, Any]) -> Any:
    """Return a known trial as Optuna has it."""
    state = optuna.trial.TrialState
    return optuna.trial.create_trial(
        state=state.PRUNED if trial.score is None else state.COMPLETE,
        value=trial.score,
        params={
            key: _word(value) if isinstance(space[key], Choices) else value
            for key, value in trial.settings.items()
        },
        distributions=parts,
        intermediate_values=dict(enumerate(trial.scores)),
    )


def _asked(study: Any, space: Space, parts: dict[str, Any], tried: set[str]) -> Settings | None:
    """Return settings that weren't tried: Optuna's, or the first of a finite space."""
    for _ in range(MOST_ASKED):
        params = study.ask(parts).params
        settings = {key: _plain(space[key], params[key]) for key in space}
        if _key(settings) not in tried:
            return settings
    return next((each for each in _all_of(space) if _key(each) not in tried), None)


def _plain(part: Range | Choices, value: Any) -> Any:
    if isinstance(part, Choices):
        return parse_json(value)
    if part.whole:
        return int(value)
    return min(max(float(f"{value:.{SIGNIFICANT}g}"), part.low), part.high)


def _all_of(space: Space) -> Iterator[Settings]:
    """Yield every setting of a finite space, as far as they can be gone through."""
    values: list[Sequence[Any]] = []
    for part in space.values():
        if isinstance(part, Range) and not part.whole:
            return
        values.append(
            part.values if isinstance(part, Choices) else range(int(part.low), int(part.high) + 1)
        )
    if math.prod(map(len, values)) > MOST_COUNTED:
        return
    for chosen in itertools.product(*values):
        yield dict(zip(space, chosen, strict=True))
