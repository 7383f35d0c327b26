"""Columns with other names than the usual ones, used where their meaning is certain."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.cutting import moved_back
from baq_cli.data.logs.ends.draft import Draft, numbered
from baq_cli.data.logs.ends.marks import is_flags, listed_starts
from baq_cli.data.logs.ends.names import Kind
from baq_cli.data.logs.ends.questions import ask
from baq_cli.data.logs.ends.roles import PLACES
from baq_cli.data.logs.ends.turns import falls_back

Array = npt.NDArray[Any]


def by_other_names(draft: Draft) -> None:
    """Use columns whose names mean one thing, though they aren't the usual ones."""
    for role, kind in (("terminated", Kind.TERMINATED), ("truncated", Kind.TRUNCATED)):
        if getattr(draft, role) is not None:
            continue
        found = [n for n in draft.free((kind,)) if is_flags(draft.clues.values(n), draft.rows)]
        if len({draft.marked(name).tobytes() for name in found}) > 1:
            ask(f"several columns could be '{role}'", found, draft.clues, draft.rows)
        if found:
            setattr(draft, role, draft.marked(found[0]))
            draft.sources[role] = found[0]
    if draft.truncated is not None or draft.episode is not None or draft.said.keys() & {*PLACES}:
        return
    numbers = draft.free((Kind.EPISODE,))
    if numbers:
        draft.episode, draft.sources["episode"] = draft.clues.values(numbers[0]), numbers[0]
        return
    for name, values in draft.clues.columns.items():
        look = draft.clues.look(name)
        known = look is not None and look.kind in (Kind.LENGTHS, Kind.LAST, Kind.FIRST)
        if not known or values is None or values.shape == (draft.rows,) or name in draft.aside:
            continue
        assert look is not None
        starts = listed_starts(values, draft.rows, look.kind)
        if starts is not None:
            draft.episode = numbered(np.flatnonzero(starts), draft.rows)
            draft.sources["episode"] = name
            return


def by_marks_of_any_end(draft: Draft) -> None:
    """Use what marks ends of either kind, where the other kind is known: certain, then.

    Ends that aren't marked as terminated are truncated. Of a `done` beside `truncated`, the ends
    that aren't truncated are terminated: if it marks all truncated ones, or none of them.
    """
    terminated, truncated = draft.terminated, draft.truncated
    if terminated is not None and truncated is None and draft.episode is None:
        _rest_truncated(draft, terminated)
    if terminated is None and truncated is not None:
        for name in draft.marking((Kind.DONE,)):
            done = draft.marked(name)
            if (done & truncated).any() and not (done | ~truncated).all():
                continue
            draft.terminated = done & ~truncated
            draft.sources["terminated"] = name
            draft.notes.append(f"'{name}' marks the ends; those not truncated count as terminated")
            return


def _rest_truncated(draft: Draft, terminated: Array) -> None:
    found: dict[str, Array] = {}
    for name in draft.marking((Kind.DONE, Kind.LAST)):
        found[name] = draft.ends(name, "last")
    for name in draft.marking((Kind.FIRST,)):
        found[name] = draft.ends(name, "first")
    for name in draft.free((Kind.STEP,), certain=False):
        if falls_back(draft.clues.values(name)) is not None:
            found[name] = draft.ends(name, "step")
    final = moved_back(np.arange(draft.rows) == draft.rows - 1, draft.bare)
    fit = {
        name: ends
        for name, ends in found.items()
        if (ends | ~terminated | final).all() and (ends & ~terminated & ~final).any()
    }
    if len({ends.tobytes() for ends in fit.values()}) > 1:
        why = "columns mark ends, and not the same ones"
        ask(why, list(fit), draft.clues, draft.rows)
    for name, ends in fit.items():
        draft.truncated = ends & ~terminated
        draft.sources["truncated"] = name
        known = draft.sources.get("terminated", "terminated")
        count = int((ends & ~terminated).sum())
        draft.notes.append(
            f"'{name}' tells where episodes end, not the environment's limit: {count} ends that "
            f"'{known}' doesn't mark count as truncated"
        )
        return
