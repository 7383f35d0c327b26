"""Which columns of a log say where its episodes end, and why: settled before it is cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.by_name import check_numbered
from baq_cli.data.logs.cutting import CutRules, FlatLog, bare_rows, moved_back, reordered
from baq_cli.data.logs.ends.clues import Clues
from baq_cli.data.logs.ends.draft import Draft, numbered
from baq_cli.data.logs.ends.marks import (
    episode_starts,
    flags,
    is_flags,
    listed_starts,
    marks_that_stay,
)
from baq_cli.data.logs.ends.names import Kind
from baq_cli.data.logs.ends.other_names import by_marks_of_any_end, by_other_names
from baq_cli.data.logs.ends.questions import NO_COLUMN, PLACE, ask, candidates
from baq_cli.data.logs.ends.roles import PLACES, way
from baq_cli.data.logs.ends.turns import Evidence, run_starts, tell_apart
from baq_cli.errors import DataError
from baq_cli.units import amount

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Decided:
    """A log whose ends are settled, as far as its columns say them.

    `sources`: the column that each role was read from, by role. `aside`: columns that the user set
    aside, or put others in the place of. `notes`: what the user should know.
    """

    log: FlatLog
    clues: Clues
    sources: dict[str, str]
    aside: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def way_without(self) -> str:
        """Return the options that leave where episodes end to a limit, and not to columns.

        Empty where no column would say that a task ended: every end would be one of the limit's.
        """
        if not self.sources.keys() & {"terminated", "not_terminated"}:
            return ""
        roles = ("truncated", "episode", "runs", *PLACES)
        ways = []
        for role in roles:
            column = self.sources.get(role)
            if column:
                said = column in self.clues.said.get(role, ())
                instead = f" in the place of {way(role, column)}" if said else ""
                ways.append(f"{way('unused', column)}{instead}")
        return " ".join(ways)


def decide(
    log: FlatLog,
    clues: Clues,
    rules: CutRules,
    last_row_observed: bool = False,
    told: bool = False,
) -> Decided:
    """Settle which rows end an episode by the columns there are.

    `last_row_observed`: each episode's last row is its final observation, and marked itself.
    `told`: the user gives the rules, which are enough then where no column says it.
    What the user says comes first, then a mapping or usual names; without a mapping other names
    are used where their meaning is certain. Rows that were written in turn are put together.
    Raises DataError where columns could mean several things, with the options that say which.
    """
    said = clues.said
    bare = np.zeros(len(log.rewards), np.bool_) if last_row_observed else bare_rows(log)
    draft = Draft(clues, said, bare)
    _by_usual_names(draft, log)
    _by_word(draft)
    if not clues.mapped:
        by_other_names(draft)
        if not said.keys() & {*PLACES}:
            by_marks_of_any_end(draft)
    _by_places(draft)
    _check_settled(draft, rules, last_row_observed, told)
    _check_marks(draft)
    terminated = draft.terminated
    settled = replace(
        log,
        terminated=np.zeros(draft.rows, np.bool_) if terminated is None else terminated,
        truncated=draft.truncated,
        episode=draft.episode,
    )
    return _told_apart(draft, settled)


def _by_usual_names(draft: Draft, log: FlatLog) -> None:
    """Take over what was read by usual names or a mapping, but where the user says otherwise."""
    said = draft.said
    draft.aside |= set(said.get("unused", ()))
    for role, instead in (
        ("terminated", ("terminated", "not_terminated")),
        ("truncated", ("truncated",)),
        ("episode", ("episode", "runs")),
    ):
        column, values = draft.clues.named.get(role), getattr(log, role)
        if column is None or values is None:
            continue  # a file doesn't say it
        if column in draft.aside or said.keys() & {*instead}:
            draft.aside.add(column)
            continue
        draft.sources[role] = column
        if role == "episode":
            check_numbered(column or role, np.isnan(values))
        else:
            values = moved_back(flags(column or role, values, draft.rows), draft.bare)
        setattr(draft, role, values)


def _by_word(draft: Draft) -> None:
    """Read the columns that the user names."""
    said = draft.said
    named = {column for role, given in said.items() if role != "unused" for column in given}
    draft.aside -= named
    for role in ("terminated", "truncated"):
        for column in said.get(role, ()):
            setattr(draft, role, draft.marked(column))
            draft.sources[role] = column
    for column in said.get("not_terminated", ()):
        draft.terminated = draft.marked(column, inverted=True)
        draft.sources["not_terminated"] = column
    for column in said.get("episode", ()):
        draft.episode, draft.sources["episode"] = _numbers(draft, column), column
    for column in said.get("runs", ()):
        draft.episode = numbered(run_starts(_numbers(draft, column)), draft.rows)
        draft.sources["runs"] = column


def _numbers(draft: Draft, column: str) -> Array:
    """Return a number for each row's episode, from a column of them or a list of ends or lengths.

    Raises DataError for what is neither.
    """
    values = draft.clues.values(column)
    if values.shape == (draft.rows,):
        check_numbered(column, np.isnan(values))
        return values
    look = draft.clues.look(column)
    kinds = (Kind.LENGTHS, Kind.LAST, Kind.FIRST) if look is None else (look.kind,)
    lists = [listed_starts(values, draft.rows, kind) for kind in kinds]
    starts = next((found for found in lists if found is not None), None)
    if starts is None:
        raise DataError(
            f"'{column}' has {len(values)} values for {draft.rows} rows: expected one a row, or "
            "ends or lengths of episodes that add up to the rows"
        )
    return numbered(np.flatnonzero(starts), draft.rows)


def _by_places(draft: Draft) -> None:
    """Read the columns of which the user says that they tell where episodes end.

    They are ends beside those that are known. Of the flags, one that is known leaves the other.
    """
    starts = np.zeros(draft.rows, dtype=np.bool_)
    for role in PLACES:
        for column in draft.said.get(role, ()):
            starts |= episode_starts(column, draft.clues.values(column), draft.rows, role)
            draft.sources[role] = column
    if not starts.any():
        return
    if draft.episode is not None:
        starts[run_starts(draft.episode)] = True
        draft.episode = numbered(np.flatnonzero(starts), draft.rows)
        return
    ends = moved_back(np.append(starts[1:], False), draft.bare)
    for column in draft.said.get("last", ()):  # the last row is no start's end
        values = draft.clues.values(column)
        ends |= draft.marked(column) if is_flags(values, draft.rows) else False
    if draft.terminated is None and draft.truncated is not None:
        draft.terminated = ends & ~draft.truncated
        return
    known = np.zeros_like(ends) if draft.truncated is None else draft.truncated
    draft.truncated = known | (ends if draft.terminated is None else ends & ~draft.terminated)


def _check_settled(draft: Draft, rules: CutRules, last_row_observed: bool, told: bool) -> None:
    """Ask what isn't settled: where episodes end, or, where a column marks it, why."""
    clues, rows = draft.clues, draft.rows
    leave = {*draft.aside, *draft.sources.values()}
    open_ones = candidates(clues, leave, rows)
    nothing = draft.truncated is None and draft.episode is None
    if nothing and draft.terminated is None and (open_ones or not told):
        ask(PLACE if told else f"{PLACE}. {NO_COLUMN}", open_ones, clues, rows)
    limited = rules.max_episode_steps is not None or rules.only_terminations
    if nothing and not (limited or last_row_observed or draft.bare.any()):
        ask(
            "the log has neither truncations (timeouts) nor episode numbers, so only terminations "
            "would end an episode. Say which it is: --max-episode-steps N (every episode ends "
            "after N steps at most), or --only-terminations",
            open_ones,
            clues,
            rows,
        )
    if draft.terminated is None and not clues.mapped and not draft.said.keys() & {*PLACES}:
        why = draft.marking((Kind.DONE, Kind.TERMINAL_STATE))
        if why:
            ask("the log doesn't say which ends are terminations", why, clues, rows)
    if draft.terminated is None:
        draft.notes.append(
            "no column says whether a task ended: every end counts as truncated, and bootstraps"
        )


def _check_marks(draft: Draft) -> None:
    """Refuse a column, said to mark the task's end, that marks more than a row of an episode.

    Without episode numbers each of those rows would be an episode of one step.
    """
    column, marked = draft.sources.get("terminated"), draft.terminated
    named = draft.said.get("terminated", ())
    if column is None or marked is None or not (column in named or draft.clues.mapped):
        return
    last = np.zeros(draft.rows, dtype=np.bool_)
    if draft.episode is not None:
        last[:-1] = draft.episode[1:] != draft.episode[:-1]
    elif draft.truncated is not None:
        last = draft.truncated.copy()
    if not last.any():
        return
    last[-1] = True
    count, whole = marks_that_stay(marked, last)
    if not count or not (whole or draft.episode is None):
        return
    instead = f" in the place of {way('terminated', column)}" if column in named else ""
    out = f"{way('unused', column)}{instead}: every end counts as truncated then"
    if whole:
        raise DataError(
            f"'{column}' marks every row of {amount(count, 'episode')}: it says how they ended, "
            "not where. Leave the mark in the last row of each alone if the task ended there, or "
            f"say {out}"
        )
    raise DataError(
        f"'{column}' marks rows up to the last one of {amount(count, 'episode')}: the task ended "
        "at the first of them. Leave the mark there alone, without the rows behind it, or say "
        f"{out}"
    )


def _follows(log: FlatLog) -> Callable[[Array, Array], bool] | None:
    """Return what tells whether rows are the next ones of others, where that is recorded."""
    following = log.next_observations
    if following is None:
        return None

    def follows(rows: Array, others: Array) -> bool:
        return all(
            np.array_equal(part[rows], log.observations[name][others], equal_nan=True)
            for name, part in following.items()
        )

    return follows


def _told_apart(draft: Draft, log: FlatLog) -> Decided:
    """Tell episodes apart whose numbers come back."""
    clues = draft.clues
    if log.episode is not None:
        ended = draft.terminated
        if draft.truncated is not None:
            ended = draft.truncated if ended is None else ended | draft.truncated
        counters = {n: clues.values(n) for n in draft.free((Kind.STEP,), certain=False)}
        if ended is not None:  # of rows of an observation alone, too
            ended = ended | np.append(False, ended[:-1] & draft.bare[1:])
        name = draft.sources.get("episode") or None
        apart = tell_apart(log.episode, name, Evidence(counters, ended, _follows(log)))
        log = replace(log, episode=apart.episode)
        if apart.order is not None:
            log = replace(reordered(log, apart.order), episode=apart.episode)
            clues = clues.ordered(apart.order)
        if apart.why:
            draft.notes.append(f"'{name or 'episode'}' has numbers that come back: {apart.why}")
    return Decided(log, clues, draft.sources, frozenset(draft.aside), tuple(draft.notes))
