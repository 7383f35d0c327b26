"""Every message that tells the user to do something is followed by a test, or can't be here."""

from __future__ import annotations

import pytest

from support.advice import Advice, followed, given

NEWER = "a newer version than this one would be needed"
PERSON = "what a person sees to, no command does"
BEYOND = {
    "{} has checkpoint format {}, this version reads {}. Upgrade with": NEWER,
    "{} holds a recipe that this version refuses: {}. Use the version that wrote it": NEWER,
    "its file system has no locks; see to it that no second process works there": PERSON,
    "remove {}: the next 'baq bench --against d3rlpy' makes it anew": "it would be downloaded",
    "If you want it all the same, 'minari download {}' keeps it.": "there is no network here",
}
"""Advice that no test can follow, by a part of it, and why."""
GIVEN, FOLLOWED = given(), followed()


@pytest.mark.parametrize("advice", GIVEN, ids=lambda advice: advice.place)
def test_advice_is_followed_by_a_test(advice: Advice) -> None:
    assert any(part in advice.text for part in (*FOLLOWED, *BEYOND)), advice.text


@pytest.mark.parametrize("part", [*FOLLOWED, *BEYOND])
def test_what_is_followed_is_still_said(part: str) -> None:
    assert any(part in advice.text for advice in GIVEN)
