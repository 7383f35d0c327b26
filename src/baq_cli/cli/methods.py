"""`baq methods`: what there is to compare, and what each method computes."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.cli.groups import ByDefault
from baq_cli.cli.say import say
from baq_cli.errors import UsageError, clipped, nearest

if TYPE_CHECKING:
    from baq_cli.agents.base import Agent
    from baq_cli.bench.cost import Cost
    from baq_cli.cli.cards import Card

LIST, JSON = "list", "--json"
ABOUT_COST = ", in operations of IQL's (docs/methods.md)"
MOST_WIDTH = 100
"""Columns of a card's text, where the terminal has as many."""


class _ListByDefault(ByDefault):
    """`baq methods` is `baq methods list`."""

    default = LIST

    def is_for_default(self, args: list[str]) -> bool:
        return not args or args[0] == JSON


app = typer.Typer(
    help="List the methods, and show what each one computes and which keys it has.",
    cls=_ListByDefault,
    rich_markup_mode=None,
)


@app.command(LIST)
def list_methods(json: opt.Json = False) -> None:
    """List the methods: family, phases, cost of an update in IQL's, paper."""
    from baq_cli.agents.registry import METHODS
    from baq_cli.bench.cost import costs
    from baq_cli.cli.cards import card_of
    from baq_cli.cli.results import print_json, print_table

    cost = costs(list(METHODS))
    found = [_facts(method, card_of(method), cost[name]) for name, method in METHODS.items()]
    found.sort(key=lambda facts: (facts["family"], facts["method"]))
    if json:
        print_json(found)
    else:
        print_table([_row(facts) for facts in found])
        say(f"gradient step (offline) and env step (online): what their updates cost{ABOUT_COST}")


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="METHOD", help="A method.", autocompletion=completion.method)
    ],
    json: opt.Json = False,
) -> None:
    """Show a method's card: its equations, the hand-over, its recipe keys, its departures."""
    from baq_cli.agents.registry import METHODS
    from baq_cli.bench.cost import costs
    from baq_cli.cli.cards import SECTIONS, card_of
    from baq_cli.cli.results import print_json, print_table
    from baq_cli.recipes.keys import keys_of

    if name not in METHODS:
        raise UsageError(f"unknown method '{clipped(name)}'; {nearest(name, list(METHODS))}")
    method = METHODS[name]
    card, keys = card_of(method), keys_of(method.Config)
    facts = _facts(method, card, costs([name])[name])
    if json:
        said = {name: card.sections.get(heading) for name, heading in SECTIONS.items()}
        about = {"summary": " ".join(card.summary.split())}
        print_json(facts | about | said | {"keys": [asdict(key) for key in keys]})
        return
    say(_text(facts, card))
    print_table([_key_row(asdict(key)) for key in keys])


def _facts(method: type[Agent], card: Card, cost: Cost) -> dict[str, Any]:
    from baq_cli.agents.registry import online_draws_from_data

    phases = {"offline": method.learns_offline, "online": method.learns_online}
    draws = method.learns_online and online_draws_from_data(method.name, method.Config())
    return {
        "method": method.name,
        "title": method.title,
        "family": method.family,
        "phases": [phase for phase, learns in phases.items() if learns],
        "online_draws_from_data": draws,
        "constraint_online": method.constraint_online,
        "cost": asdict(cost),
        "paper": card.paper,
        "arxiv": card.arxiv,
    }


def _row(facts: dict[str, Any]) -> dict[str, Any]:
    cost = facts["cost"]
    return {
        "method": facts["method"],
        "title": facts["title"],
        "family": facts["family"],
        "phases": ", ".join(facts["phases"]),
        "gradient step": _times(cost["gradient_step"]),
        "env step": _times(cost["env_step"]),
        "paper": f"arXiv {facts['arxiv']}" if facts["arxiv"] else facts["paper"],
    }


def _times(cost: float | None) -> str:
    return "–" if cost is None else f"{cost:.1f}×"


def _text(facts: dict[str, Any], card: Card) -> str:
    """Return a card in lines: prose as wide as the terminal, equations as they are written."""
    from baq_cli.cli.cards import blocks

    width = min(shutil.get_terminal_size((MOST_WIDTH, 0)).columns, MOST_WIDTH)
    parts = [_flowing(" ".join(text.split()), width) for text in card.summary.split("\n\n")]
    parts.append("\n".join(f"{name:<10} {said}" for name, said in _about(facts)))
    for heading, text in card.sections.items():
        begin, *rest = blocks(text)
        equations = begin[0] == " "
        shown = [f"{heading}:", begin] if equations else [f"{heading}: {begin}"]
        lines = (b if b[0] == " " else _flowing(b, width) for b in (*shown, *rest))
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, f"Keys of a recipe's section {facts['method']}:"])


def _about(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a card's facts in words, by name."""
    cost, held = facts["cost"], facts["constraint_online"]
    costs = {
        "a gradient step offline": cost["gradient_step"],
        "an environment step online": cost["env_step"],
    }
    link = f"https://arxiv.org/abs/{facts['arxiv']}" if facts["arxiv"] else facts["paper"]
    return [
        ("method", facts["method"]),
        ("family", facts["family"]),
        ("phases", ", ".join(facts["phases"])),
        *([("dataset", "online too")] if facts["online_draws_from_data"] else ()),
        *([("constraint", f"{held} online")] if held != "none" else ()),
        ("cost", ", ".join(f"{_times(c)} {step}" for step, c in costs.items() if c) + ABOUT_COST),
        ("paper", link),
    ]


def _flowing(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _key_row(key: dict[str, Any]) -> dict[str, Any]:
    from json import dumps

    default = key["default"]
    shown = default if isinstance(default, str) else dumps(default)
    return {"key": key.pop("name"), **key, "default": shown}
