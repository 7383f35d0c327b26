"""Trying what may be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from baq_cli.errors import BaqError

Value = TypeVar("Value")


def attempt(call: Callable[[], Value]) -> tuple[Value | None, BaqError | None]:
    """Return what a call returns, or how it was refused; any other exception is a fault."""
    try:
        return call(), None
    except BaqError as error:
        return None, error
