"""What is checked of a dataset's content, when it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.episodes import Episodes, Finding
from baq_cli.errors import MOST_LISTED, DataError, listed
from baq_cli.units import amount

Array = npt.NDArray[Any]
OUTSIDE = 1e-4
"""How far beyond its bounds an action may lie by rounding, in units of [−1, 1]."""
ON_BOUNDS = 0.01
"""The share of actions exactly on a bound above which it is worth a warning."""
BLOCK = 1 << 16


def _error(check: str, text: str) -> Finding:
    return Finding("error", check, text)


def _warning(check: str, text: str) -> Finding:
    return Finding("warning", check, text)


def refuse(episodes: Episodes, findings: Sequence[Finding]) -> Episodes:
    """Return the episodes with their warnings.

    Raises DataError, with every error, when there is one.
    """
    errors = [finding.text for finding in findings if finding.level == "error"]
    if errors:
        raise DataError(f"dataset '{episodes.dataset_id}': {' '.join(errors)}")
    return replace(episodes, findings=tuple(findings))


def content_findings(episodes: Episodes) -> list[Finding]:
    """Check everything that needs no environment."""
    finite = list(_not_finite(episodes))
    rest = [_actions, _end_flags, _lengths, _dimensions, _rewards, _duplicates]
    found = [finding for check in rest for finding in check(episodes)]
    return [*finite, *episodes.rounding, *found]


# -- content


def _not_finite(episodes: Episodes) -> Iterator[Finding]:
    for name, rows in (
        ("observations", episodes.observations),
        ("actions", episodes.action),
        ("rewards", episodes.reward),
    ):
        with np.errstate(invalid="ignore"):
            if np.isfinite(rows.sum(dtype=np.float64)):  # nothing can hide in a finite sum
                continue
        bad = np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(1))
        if not len(bad):
            continue
        if name == "observations":
            firsts = episodes.starts + np.arange(len(episodes.lengths))
            number = int(np.searchsorted(firsts, bad[0], side="right")) - 1
            step = int(bad[0] - firsts[number])
        else:
            number = int(episodes.episode[bad[0]])
            step = int(bad[0] - episodes.starts[number])
        yield _error(
            "finite",
            f"{name} are NaN, infinite or beyond float32 in {len(bad)} of {len(rows)} rows, "
            f"first in episode {number} at step {step} (both counted from 0, in the order of "
            "the data). Mend those rows in what the dataset is made of, or leave their episodes "
            "out, and make it again.",
        )


def _actions(episodes: Episodes) -> Iterator[Finding]:
    outside, on = np.zeros((2, len(episodes)), dtype=np.bool_)
    furthest = 0.0
    for start in range(0, len(episodes), BLOCK):  # no second copy of them all
        rows = slice(start, start + BLOCK)
        size = np.fmax.reduce(np.abs(episodes.action[rows]), axis=1)
        furthest = max(furthest, float(np.fmax.reduce(size)))
        outside[rows] = size > 1 + OUTSIDE
        on[rows] = size >= 1
    on &= ~outside
    if outside.any():
        yield _error(
            "action bounds",
            f"{_share(outside)} of the actions lie outside the recorded action space (by up to "
            f"{furthest - 1:.3g} of its half width). Write the dataset as a file ('baq data export "
            f"{episodes.dataset_id} --to npz --out FILE'), and import that with --clip-actions or "
            "the right bounds.",
        )
    if on.mean() > ON_BOUNDS:
        yield _warning(
            "action bounds",
            f"{_share(on)} of the actions lie exactly on a bound, where a squashed policy's "
            "log-probability is infinite; methods here move them inside by a hair.",
        )


def _end_flags(episodes: Episodes) -> Iterator[Finding]:
    last = episodes.starts + episodes.lengths - 1
    terminated, truncated = episodes.terminated[last], episodes.truncated[last]
    marked = episodes.terminated | episodes.truncated
    inside = marked.copy()
    inside[last] = False
    if inside.any():
        yield _error(
            "end flags",
            f"marked terminated or truncated inside an episode: {amount(inside.sum(), 'step')}; "
            f"{_marked_inside(marked, inside, episodes)}",
        )
    if (terminated & truncated).any():
        yield _warning(
            "end flags",
            f"{_share(terminated & truncated)} of the episodes end both terminated and truncated; "
            "they are taken as terminated.",
        )
    neither = ~(terminated | truncated)
    if neither.any():
        yield _warning(
            "end flags",
            f"{_share(neither)} of the episodes end neither terminated nor truncated; they are "
            "taken as truncated.",
        )


def _marked_inside(marked: Array, inside: Array, episodes: Episodes) -> str:
    """Say what flags inside episodes mean, and what to do; `[M]` bool each."""
    if not marked[np.flatnonzero(inside) + 1].all():
        return (
            "the episodes are cut wrongly. Import the log again without its episode numbers "
            "(--ends unused=COLUMN), and the flags decide."
        )
    of = np.unique(episodes.episode[inside])
    if marked[np.isin(episodes.episode, of)].all():
        return (
            f"every step of {amount(len(of), 'episode')} is. Such a mark says how an episode "
            "ended, not where: leave it at the last step of each alone."
        )
    return (
        "the mark stays to the episode's last step. Mark the first of these steps alone, and "
        "remove the rows behind it."
    )


def _lengths(episodes: Episodes) -> Iterator[Finding]:
    short = episodes.lengths == 1
    if short.any():
        yield _warning("lengths", f"{_share(short)} of the episodes have one step.")
    yield from longer_than(episodes, episodes.origin.max_episode_steps)


def longer_than(episodes: Episodes, limit: int | None) -> Iterator[Finding]:
    """Find episodes that are longer than an environment allows, in env_steps."""
    if limit is not None and (episodes.lengths > limit).any():
        yield _warning(
            "lengths",
            f"{_share(episodes.lengths > limit)} of the episodes are longer than the "
            f"{limit} steps that their environment allows (the longest: "
            f"{int(episodes.lengths.max())}).",
        )


def cut_short(episodes: Episodes, limit: int | None) -> Iterator[Finding]:
    """Find that most episodes are cut, and all before an environment would, in env_steps.

    A log may lack the last step of an episode, whose successor nobody saw: one less is whole.
    """
    cut = episodes.cut_after
    if limit is None or cut is None or cut >= limit - 1:
        return
    last = episodes.starts + episodes.lengths - 1
    if episodes.terminated[last].mean() <= 0.5:
        yield _warning(
            "lengths",
            f"most episodes are cut, the longest after {cut:,} steps; their environment goes on to "
            f"{limit:,}. Returns over fewer steps, and scores made of them, aren't comparable with "
            "those of policies that play there.",
        )


def _dimensions(episodes: Episodes) -> Iterator[Finding]:
    for name, rows in (("observation", episodes.observations), ("action", episodes.action)):
        low, high = rows.min(0), rows.max(0)
        constant = [str(i) for i in np.flatnonzero(low == high)]
        if constant and len(rows) > 1:
            yield _warning("dimensions", f"{name} dimensions [{listed(constant)}] are constant.")
        alike: dict[bytes, list[int]] = {}
        for i in np.flatnonzero(low < high).tolist():
            column = (rows[:, i] + 0.0).tobytes()  # −0.0 is 0.0
            alike.setdefault(hashlib.blake2b(column, digest_size=16).digest(), []).append(i)
        pairs = [p for g in alike.values() for p in islice(combinations(g, 2), MOST_LISTED + 1)]
        if pairs:
            same = listed([f"{i} = {j}" for i, j in sorted(pairs)])
            yield _warning("dimensions", f"{name} dimensions are duplicates: {same}.")


def _rewards(episodes: Episodes) -> Iterator[Finding]:
    if len(episodes) > 1 and episodes.reward.min() == episodes.reward.max():
        yield _warning(
            "rewards",
            f"every reward is {float(episodes.reward[0]):g}: there is nothing to prefer.",
        )


def _duplicates(episodes: Episodes) -> Iterator[Finding]:
    seen: set[bytes] = set()
    firsts = episodes.starts + np.arange(len(episodes.lengths))
    observations = np.ascontiguousarray(episodes.observations)
    action = np.ascontiguousarray(episodes.action)
    for first, start, length in zip(firsts, episodes.starts, episodes.lengths, strict=True):
        digest = hashlib.blake2b(observations[first : first + length + 1].data, digest_size=16)
        digest.update(action[start : start + length].data)
        seen.add(digest.digest())
    copies = len(firsts) - len(seen)
    if copies:
        yield _warning(
            "duplicates",
            f"copies of other episodes, step by step: {copies:,} of {len(firsts):,}.",
        )


def _share(mask: Any) -> str:
    return f"{int(mask.sum()):,} of {len(mask):,} ({mask.mean():.1%})"
