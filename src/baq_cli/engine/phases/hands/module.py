"""A class of the user's, named on the command line, that acts in the policy's place."""

from __future__ import annotations

import importlib
import importlib.util
import traceback
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from baq_cli.errors import UsageError, clipped
from baq_cli.hand import FAILURE, SUCCESS, UNMARKED, Decision, Hand, Moment, OpenHand, Setting


class HandFault(Exception):
    """A class of the user's that raised, or decided on what can't be done."""


def module_class(name: str, named: str | None) -> OpenHand:
    """Return what makes an object of `MODULE:CLASS`, where the command line `named` the same.

    Raises UsageError where it did not, where the module or its class can't be had, and for a class
    that can't decide.
    """
    if name != named:
        raise UsageError(
            f"the recipe has '{clipped(name)}' take over, and a class is imported only where the "
            f"command itself names it. If you want that, add --intervene {clipped(name)} to "
            "'baq finetune'."
        )
    found = _find(name)
    if isinstance(found, type) and not callable(getattr(found, "decide", None)):
        raise UsageError(f"{clipped(name)} has no method 'decide(moment)': see docs/robots.md")
    return partial(ClassHand, name)


class ClassHand:
    """An object of a class of the user's; what it decides is checked.

    It is made with a `Setting`; `decide(moment)` returns a `Decision`, and `close()` is called at
    the end where it has one. Raises HandFault for what it raises, and for no possible decision;
    what `close()` raises is passed over, for nothing more is wanted of it.
    """

    def __init__(self, name: str, setting: Setting):
        self._name, self._setting = name, setting
        try:
            self._made: Hand = _find(name)(setting)
        except Exception as error:
            raise UsageError(f"{name} can't be made: {_told(error)}") from error

    def decide(self, moment: Moment) -> Decision:
        """Return what the object decides."""
        try:
            decision = self._made.decide(moment)
        except (Exception, SystemExit) as error:
            raise HandFault(f"{self._name} failed: {_told(error)}") from error
        if not isinstance(decision, Decision):
            raise HandFault(f"{self._name} returned {clipped(repr(decision))}, not a Decision")
        if np.ndim(decision.mark) or decision.mark not in (FAILURE, UNMARKED, SUCCESS):
            raise HandFault(
                f"{self._name} returned the mark {clipped(decision.mark)}, not -1, 0, 1"
            )
        for name in ("end", "pause", "stop"):
            if not isinstance(getattr(decision, name), bool | np.bool_):
                odd = clipped(repr(getattr(decision, name)))
                raise HandFault(f"{self._name} returned {name} = {odd}, expected True or False")
        return decision if decision.action is None else self._checked(decision)

    def _checked(self, decision: Decision) -> Decision:
        try:
            action = np.asarray(decision.action, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise HandFault(f"{self._name} returned no numbers for an action: {error}") from error
        fits = action.shape == (self._setting.action_dim,)
        if not fits or not bool((np.abs(action) <= 1).all()):
            raise HandFault(
                f"{self._name} returned the action {clipped(action.tolist())}; expected "
                f"{self._setting.action_dim} numbers in [-1, 1]"
            )
        return replace(decision, action=action)

    def close(self) -> None:
        """Close the object, where it can be closed."""
        close = getattr(self._made, "close", None)
        if close is not None:
            with suppress(Exception):
                close()


def _find(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0] and error.name != module:
            raise UsageError(f"{module} can't be imported: {_told(error)}") from error
        raise UsageError(
            f"there is no module '{clipped(module)}' on Python's path: install it, or name its "
            "folder, as in 'PYTHONPATH=. baq finetune …'"
        ) from error
    except AttributeError as error:
        raise UsageError(f"{name}: {error}") from error
    except Exception as error:
        raise UsageError(f"{module} can't be imported: {_told(error)}") from error


def _told(error: BaseException) -> str:
    """Return an error in a line, with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return " ".join(f"{type(error).__name__}: {clipped(error)}{place}".split())
