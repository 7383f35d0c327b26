"""Options stay whole: a browser would break a line behind each of their hyphens."""

from __future__ import annotations

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_INLINE = re.compile(r"<code>([^<]*--[^<]*)</code>")
_OPTION = re.compile(r"--[\w-]+")


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mark the options in a text's inline code as words, for site.css."""
    return _INLINE.sub(lambda code: _OPTION.sub(r'<span class="word">\g<0></span>', code[0]), html)
