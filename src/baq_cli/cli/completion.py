"""What a shell offers behind `baq` when its user presses Tab.

Nothing heavy is imported here, PyTorch least of all. Whatever fails, or takes longer than a user
waits, offers nothing, and says nothing: the line that is being typed stays as it is.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, NoReturn

import typer

from baq_cli.cli.typed_folders import (
    COMPARISON,
    RUN,
    SEARCH,
    checkpoints_of,
    holding,
    is_plain,
    run_around,
)

if TYPE_CHECKING:
    from baq_cli.recipes.method_files import Key

VARIABLE = "_BAQ_COMPLETE"
"""The variable by which a shell's script asks."""
MOST_SECONDS = 2.0

Offer = str | tuple[str, str]
Completer = Callable[[typer.Context, str], list[Offer]]


def is_asked() -> bool:
    """Return whether a shell runs this process for its completion."""
    return bool(os.environ.get(VARIABLE))


def answer(app: Callable[[], object]) -> NoReturn:
    """Have Typer answer the shell, within MOST_SECONDS and without a word on stderr."""
    try:
        with (
            contextlib.redirect_stderr(io.StringIO()),
            _ended_after(MOST_SECONDS),
        ):
            app()
    except (Exception, KeyboardInterrupt):
        raise SystemExit(1) from None
    raise SystemExit(0)


@contextlib.contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """End this process at once where the block takes longer."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -- completers, as Typer calls them


def _quietly(offers: Callable[[typer.Context, str], Iterable[Offer]]) -> Completer:
    """Return a completer that offers nothing where it fails."""

    @wraps(offers)
    def complete(ctx: typer.Context, incomplete: str) -> list[Offer]:
        try:
            return list(offers(ctx, incomplete))
        except Exception:
            return []

    return complete


def _listed(offers: Callable[[], Iterable[Offer]]) -> Completer:
    """Return a completer of the last word of a list that is separated by commas."""

    @_quietly
    def complete(ctx: typer.Context, incomplete: str) -> Iterator[Offer]:
        before, comma, _ = incomplete.rpartition(",")
        taken = before.split(",")
        for word, meaning in map(_with_meaning, offers()):
            if word not in taken:
                yield before + comma + word, meaning

    return complete


def _with_meaning(offer: Offer) -> tuple[str, str]:
    return (offer, "") if isinstance(offer, str) else offer


def _methods() -> Iterable[Offer]:
    from baq_cli.recipes.method_files import method_titles

    return method_titles().items()


def _recipes() -> Iterable[Offer]:
    from baq_cli.recipes.names import recipe_names

    return recipe_names()


def _reference_datasets() -> Iterable[Offer]:
    from baq_cli.data.suite import SUITE

    return [(name, reference.about) for name, reference in SUITE.items()]


def _datasets() -> Iterator[Offer]:
    from baq_cli.data.minari.names import dataset_folders
    from baq_cli.surroundings import minari_folder

    root = minari_folder()
    names = (folder.relative_to(root).as_posix() for folder in dataset_folders(root))
    here = [name for name in names if is_plain(name)]
    yield from here
    yield from (each for each in _reference_datasets() if each[0] not in here)


@_quietly
def method(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Offer methods."""
    return _methods()


@_quietly
def recipe(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Offer shipped recipes; where none begins so, the shell offers files."""
    return _recipes()


@_quietly
def recipe_folder(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Offer the folders of shipped recipes."""
    from baq_cli.recipes.names import recipe_names

    return sorted({name.partition("/")[0] for name in recipe_names()})


@_quietly
def curves(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Offer curves that ship; where none begins so, the shell offers files."""
    from baq_cli.report.names import PUBLISHED

    return PUBLISHED


@_quietly
def dataset(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Offer the datasets in the Minari folder and those that can be built."""
    return _datasets()


@_quietly
def reference_dataset(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Offer the datasets that can be built."""
    return [*_reference_datasets(), ("all", "every one of them")]


methods, recipes, datasets = _listed(_methods), _listed(_recipes), _listed(_datasets)


# -- runs


@_quietly
def checkpoint(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Offer runs at and below the folder that is typed; of a run alone, its checkpoints too."""
    runs = list(holding((RUN,), incomplete)) or run_around(incomplete)
    return [*runs, *(checkpoints_of(runs[0]) if len(runs) == 1 else ())]


@_quietly
def comparison(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Offer the folders of comparisons."""
    return holding((COMPARISON,), incomplete)


@_quietly
def search(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Offer the folders of searches."""
    return holding((SEARCH,), incomplete)


@_quietly
def chosen_from(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Offer what a search may choose by."""
    from baq_cli.recipes.method_files import tune_keys

    return [word for key in tune_keys() if key.name == "chosen_from" for word in key.values()]


@_quietly
def reported(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Offer what can be reported: comparisons and runs; a run may have a name before it."""
    name, equals, typed = incomplete.rpartition("=")
    return [name + equals + found for found in holding((COMPARISON, RUN), typed)]


# -- recipe keys


@_quietly
def override(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Offer `KEY.SUB=VALUE`: keys as far as their section; of a single key, its values."""
    for option in ctx.command.params:  # bash takes --option=value for three words
        if str(ctx.params.get(option.name or "")) == "=":
            return [
                (item.value, item.help or "") for item in option.shell_complete(ctx, incomplete)
            ]
    words = [*(ctx.params.get("overrides") or ())]
    if "=" in words[-2:]:  # and key=value: here its = is the last, or its value
        words.pop()
    if not words or "=" in words[-1]:
        return _overrides(ctx, incomplete)
    return [value for key in _keys(words[-1], ctx) for value in key.values()]


@_quietly
def grid(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Offer `KEY.SUB=VALUE` as `override` does, for one option."""
    return _overrides(ctx, incomplete)


def _overrides(ctx: typer.Context, incomplete: str) -> Iterator[Offer]:
    name, equals, _ = incomplete.partition("=")
    keys = _keys(name, ctx, whole=bool(equals))
    sections = [] if equals else _sections(name, ctx)
    if len(sections) > 1:
        yield from (f"{section}." for section in sections)
    if not equals:
        yield from ((f"{key.name}=", key.meaning) for key in keys)
    if len(keys) == 1 and len(sections) < 2:  # a second word, so that no space is put behind one
        yield from ((f"{keys[0].name}={value}", keys[0].meaning) for value in keys[0].values())


def _sections(typed: str, ctx: typer.Context) -> list[str]:
    """Return the sections of a recipe that what is typed may lead to."""
    from baq_cli.recipes.method_files import method_names

    asked = [ctx.params.get(name) or "" for name in ("algo", "algos")]
    named = [word for word in ",".join(asked).split(",") if word in method_names()]
    sections = ["shared", *(named or method_names())]
    return [
        name for name in sections if f"{name}.".startswith(typed) or typed.startswith(f"{name}.")
    ]


def _keys(typed: str, ctx: typer.Context, whole: bool = True) -> list[Key]:
    """Return the keys that are typed, whole or so far; a section's, where it is the only one."""
    from baq_cli.recipes.method_files import method_keys, run_keys, shared_keys

    found = run_keys()
    sections = _sections(typed, ctx)
    if len(sections) == 1:
        (section,) = sections
        inside = shared_keys() if section == "shared" else method_keys(section)
        found += [replace(key, name=f"{section}.{key.name}") for key in inside]
    return [key for key in found if (key.name == typed if whole else key.name.startswith(typed))]
