"""What a user says of a log's columns: `--ends ROLE=COLUMN`, or the same words in a mapping."""

from __future__ import annotations

from collections.abc import Sequence

from baq_cli.errors import UsageError, clipped, listed, nearest

Said = dict[str, tuple[str, ...]]
"""Columns by role."""
ROLES = {
    "terminated": "marks the steps at which the task ended",
    "not_terminated": "is 0 at the steps at which the task ended (masks)",
    "truncated": "marks the steps at which the recording stopped",
    "last": "marks every episode's last step, whatever the reason",
    "first": "marks every episode's first step",
    "episode": "tells episodes apart, by a number or a name",
    "runs": "does too, but a number that comes back is another episode",
    "step": "counts steps or time: an episode begins where it falls back",
    "unused": "means none of these, whatever it is called",
}
"""What the column of a role does."""
PLACES = ("last", "first", "step")
"""Roles that say where an episode ends, and not why."""


def parse_ends(words: Sequence[str]) -> Said:
    """Read the values of `--ends`.

    Raises UsageError for an unknown role, or two columns of one.
    """
    said: Said = {}
    for word in words:
        role, mark, column = word.partition("=")
        if not mark or not column:
            raise UsageError(f"--ends {clipped(word)}: expected ROLE=COLUMN, as terminated=done")
        said[role] = (*said.get(role, ()), column)
    return check_roles(said)


def check_roles(said: Said) -> Said:
    """Return roles of columns.

    Raises UsageError for an unknown one, two that contradict each other, or a column of two.
    """
    unknown = [role for role in said if role not in ROLES]
    if unknown:
        raise UsageError(
            f"--ends: no role '{clipped(unknown[0])}'; {nearest(unknown[0], [*ROLES])}"
        )
    several = [role for role, given in said.items() if role != "unused" and len(given) != 1]
    if several:
        raise UsageError(f"--ends {several[0]} has one column; found {listed(said[several[0]])}")
    for one, other in (("terminated", "not_terminated"), ("episode", "runs")):
        if one in said and other in said:
            raise UsageError(f"--ends {one} and {other} say the same: give one of them")
    columns = [column for given in said.values() for column in given]
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise UsageError(f"--ends gives two roles to {listed(twice)}: expected one each")
    return said


def way(role: str, column: str) -> str:
    """Return the option that gives a column a role, as one types it."""
    word = f"{role}={column}"
    plain = all(letter.isalnum() or letter in "=._/-" for letter in word)
    return f"--ends {word}" if plain else f"--ends '{word}'"
