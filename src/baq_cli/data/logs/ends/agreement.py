"""What a log's other columns say of the episodes that it was cut into, and which weren't used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.cutting import CutLog, CutRules
from baq_cli.data.logs.ends.counts import wrong_list, wrong_number, wrong_row_lengths
from baq_cli.data.logs.ends.decide import Decided
from baq_cli.data.logs.ends.marks import flags, is_flags
from baq_cli.data.logs.ends.names import FLAGS, Kind, Look
from baq_cli.data.logs.ends.questions import question
from baq_cli.data.logs.ends.roles import way
from baq_cli.data.logs.ends.turns import falls_back
from baq_cli.errors import MOST_LISTED, DataError
from baq_cli.units import amount

Array = npt.NDArray[Any]
LISTS = (Kind.LENGTHS, Kind.LAST, Kind.FIRST)


@dataclass(frozen=True)
class Account:
    """What an import says of its reading: where ends come from, what was left out, and notes."""

    ends_from: dict[str, str]
    not_used: dict[str, str]
    notes: tuple[str, ...]

    def about(self) -> dict[str, Any]:
        """Return it as an entry of a dataset's metadata."""
        facts = {
            "ends_from": self.ends_from,
            "columns_not_used": self.not_used,
            "notes": list(self.notes),
        }
        return {name: fact for name, fact in facts.items() if fact}


def account(decided: Decided, done: CutLog, rules: CutRules) -> Account:
    """Hold columns that weren't used against the cut, and say which they are.

    Raises DataError, with every contradiction and its ways out, where there is one: a column marks
    an end inside an episode, or the file says another number of episodes, or other lengths.
    """
    clues, rows = decided.clues, len(done.episode)
    taken = {*decided.sources.values(), *decided.aside}
    starts = np.append(True, done.episode[1:] != done.episode[:-1])
    told = decided.log.truncated is not None or decided.log.episode is not None
    limit = None if told or rules.only_terminations else rules.max_episode_steps
    instead = _beside_a_limit(decided, rules, told)
    wrong = [
        wrong_number(name, number, done, limit, instead)
        for name, number in clues.numbers.items()
        if name not in decided.aside
    ]
    other, notes = [], []
    for name, values in clues.columns.items():
        look = clues.look(name)
        if name in taken or values is None or look is None:
            continue
        if values.shape != (rows,):
            if look.kind in LISTS:
                wrong.append(wrong_list(name, values, look.kind, done))
            continue
        if look.kind is Kind.LENGTHS:
            wrong.append(wrong_row_lengths(name, values, done))
        elif _contradicts(name, values, look, decided, done, starts, rules):
            other.append(name)
        elif look.kind is Kind.STEP:
            notes += _out_of_order(name, values, starts)
    lines = [line for line in wrong if line]
    if other:
        count = int(done.episode[-1]) + 1
        by = [decided.sources[r] for r in ("episode", "runs") if decided.sources.get(r)]
        how = f" (by '{by[0]}', or else {way('unused', by[0])})" if by else ""
        lines.append(f"the cut into {amount(count, 'episode')}{how} isn't what other columns say:")
        lines += [f"{question(name, clues, rows)}." for name in other]
    if lines:
        raise DataError(" ".join(lines[:MOST_LISTED]))
    sources = {role: column for role, column in decided.sources.items() if column}
    if limit is not None:
        sources["truncated"] = f"the limit of {limit:,} steps"
    return Account(sources, _not_used(decided, rows), (*decided.notes, *notes))


def _beside_a_limit(decided: Decided, rules: CutRules, told: bool) -> str | None:
    """Return what has to go with a limit of steps for it to count; None where it can't."""
    if told:
        return f" with {decided.way_without}" if decided.way_without else None
    return " in the place of --only-terminations" if rules.only_terminations else ""


def _contradicts(
    name: str,
    values: Array,
    look: Look,
    decided: Decided,
    done: CutLog,
    starts: Array,
    rules: CutRules,
) -> bool:
    """Tell whether a column of a value a row says something else of the ends than the cut."""
    rows = len(values)
    if look.kind in FLAGS and is_flags(values, rows):
        marked = flags(name, values, rows)
        at_ends, at_starts = not (marked & ~done.ends).any(), not (marked & ~starts).any()
        if look.kind is Kind.FIRST:
            return not at_starts
        if look.kind is Kind.RESET:
            return not (at_ends or at_starts)
        if look.kind is Kind.TERMINATED and at_ends and "terminated" in decided.sources:
            ended = np.unique(done.episode[marked])
            return not np.array_equal(ended, np.unique(done.episode[decided.log.terminated]))
        return not at_ends
    if look.kind is Kind.EPISODE:
        changes = np.append(True, values[1:] != values[:-1])
        finer = bool((changes & ~starts).any())
        coarser = bool((starts & ~changes).any()) and look.certain and not rules.split_gaps
        return finer or (coarser and not decided.clues.mapped)
    if look.kind is Kind.STEP:
        back = falls_back(values, may_repeat=True)
        return back is not None and bool((back & ~starts).any())
    return False


def _out_of_order(name: str, values: Array, starts: Array) -> list[str]:
    """Return what is odd of a time inside episodes: where it falls, or stands still."""
    change = np.diff(values.astype(np.float64))
    inside = ~starts[1:]
    fallen, still = inside & (change < 0), inside & (change == 0)
    rising = int((inside & (change > 0)).sum())
    if rising <= int(fallen.sum()) or not (fallen | still).any():
        return []
    places = [
        f"{word} in {amount(int(rows.sum()), 'row')}, first in row {int(rows.argmax()) + 1}"
        for word, rows in (("falls", fallen), ("repeats", still))
        if rows.any()
    ]
    return [
        f"inside episodes '{name}' {' and '.join(places)} (from 0): are the rows in order, and "
        "none of them twice?"
    ]


def _not_used(decided: Decided, rows: int) -> dict[str, str]:
    """Return the columns that look like an end, a reward or a time and weren't used, with which."""
    used = set(decided.sources.values())
    found = {}
    for name, values in decided.clues.columns.items():
        look = decided.clues.look(name)
        if name in used or name in decided.clues.numbers:
            continue
        if name.startswith("infos/") and (look is None or look.kind not in FLAGS):
            continue  # kept, as every info
        word = "named by --ends" if look is None else str(look.kind)
        if look is not None and not look.certain and look.kind in FLAGS:
            word = "an end"
        found[name] = word if values is not None else f"{word}, not read"
    return found
