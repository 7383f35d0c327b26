"""What is made from the code when the site is built: commands, recipe keys, the methods' cards."""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))  # hooks are loaded by path
import commands_page
import keys_page
import method_pages

CARDS = "reference/methods/"
"""The entry of the navigation that stands for all methods' pages."""
MADE_HERE = "<!-- made at build time -->"
MADE = {
    "reference/commands.md": commands_page.tables,
    "reference/recipes.md": keys_page.tables,
    f"{CARDS}index.md": method_pages.index,
}
"""What stands in a page in the place of that line."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put a page for every method where the navigation says `CARDS`."""
    pages = [f"{CARDS}index.md", *(f"{CARDS}{name}.md" for name in method_pages.names())]
    config.nav = _with_cards(config.nav, pages)
    return config


def _with_cards(entries: object, pages: list[str]) -> object:
    if entries == CARDS:
        return pages
    if isinstance(entries, list):
        return [_with_cards(entry, pages) for entry in entries]
    if isinstance(entries, dict):
        return {title: _with_cards(entry, pages) for title, entry in entries.items()}
    return entries


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every method."""
    for name, text in method_pages.pages().items():
        files.append(File.generated(config, f"{CARDS}{name}", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put what is made from the code into the pages that wait for it."""
    made = MADE.get(page.file.src_uri)
    return markdown if made is None else markdown.replace(MADE_HERE, made())
