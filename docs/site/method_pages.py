"""A page for every method, from its card and its configuration."""

from __future__ import annotations

from typing import Any

from keys_page import keys_table
from markdown_tables import code, plain, table

from baq_cli.agents.base import Agent
from baq_cli.agents.registry import METHODS, online_draws_from_data
from baq_cli.cli.cards import blocks, card_of
from baq_cli.recipes.keys import keys_of


def names() -> list[str]:
    """Return the names of the methods, in the order of their titles."""
    return sorted(METHODS, key=lambda name: METHODS[name].title.lower())


def pages() -> dict[str, str]:
    """Return a page a method, by its file's name."""
    return {f"{name}.md": _page(METHODS[name]) for name in names()}


def index() -> str:
    """Return the methods as a table, with links to their pages."""
    rows = []
    for name in names():
        method = METHODS[name]
        title = f"[{plain(method.title)}]({name}.md)"
        rows.append((code(name), title, method.family, ", ".join(_phases(method)), _paper(method)))
    return table(("name", "method", "family", "phases", "paper"), rows)


def _page(method: type[Agent]) -> str:
    card = card_of(method)
    parts = [f"# {method.title}"]
    parts += [plain(text) for text in card.summary.split("\n\n")]
    head, *rows = _facts(method)
    parts.append(table(head, rows))
    for heading, text in card.sections.items():
        parts.append(f"## {heading}")
        parts += [_block(block) for block in blocks(text)]
    parts.append(f"## Keys of a recipe's section `{method.name}`")
    parts.append(keys_table(keys_of(method.Config)))
    return "\n\n".join(parts) + "\n"


def _block(block: str) -> str:
    return block if block.startswith("    ") else plain(block)


def _facts(method: type[Agent]) -> list[tuple[str, str]]:
    online = method.learns_online and online_draws_from_data(method.name, method.Config())
    facts: list[tuple[str, Any]] = [
        ("name", code(method.name)),
        ("family", method.family),
        ("phases", ", ".join(_phases(method))),
        ("paper", _paper(method)),
    ]
    if online:
        facts.append(("dataset", "online too"))
    if method.constraint_online != "none":
        facts.append(("constraint", f"{method.constraint_online} online"))
    return facts


def _phases(method: type[Agent]) -> list[str]:
    phases = {"offline": method.learns_offline, "online": method.learns_online}
    return [phase for phase, learns in phases.items() if learns]


def _paper(method: type[Agent]) -> str:
    card = card_of(method)
    if card.arxiv is None:
        return plain(card.paper)
    return f"{plain(card.paper)}, [arXiv {card.arxiv}](https://arxiv.org/abs/{card.arxiv})"
