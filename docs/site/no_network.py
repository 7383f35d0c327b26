"""What a built page loads from elsewhere is refused: the site works without a network."""

from __future__ import annotations

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.pages import Page

_LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=[\"']?((?:https?:)?//[^\"'\s>]+)"
    r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|icon|preconnect|preload|modulepreload))"
    r"[^>]*\bhref=[\"']?((?:https?:)?//[^\"'\s>]+)",
    re.IGNORECASE,
)
log = get_plugin_logger("no_network")


def loaded_from_elsewhere(html: str) -> list[str]:
    """Return the addresses beyond the site that a page loads when it is opened, links aside."""
    return [script or link for script, link in _LOADED.findall(html)]


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warn, which a strict build refuses, of a page that loads something from elsewhere."""
    for address in loaded_from_elsewhere(output):
        log.warning(f"{page.file.src_uri} loads {address}: the site must work without a network")
    return output
