"""Pages of the site that lie outside docs/, and links to files there.

On a forge a link leads to the file itself. On the site the documents of ROOT_PAGES are pages of
their own, and any other file that a page links to is copied below `files/`. A link that shows the
path of a document shows its title on the site.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
COPIES = "files"
_LINK = re.compile(r"(?P<text>\[[^\[\]]*)?\]\((?P<target>[^)\s#]+)(?P<rest>(?:#[^)\s]*)?\))")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_ELSEWHERE = re.compile(r"[a-z]+:")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, and what pages link to outside of docs/."""
    pages = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    pages |= {name: (ROOT / name).read_text(encoding="utf-8") for name in ROOT_PAGES}
    for name, uri in ROOT_PAGES.items():
        files.append(File.generated(config, uri, content=for_site(pages[name], name, uri)))
    for path in sorted({path for name, text in pages.items() for path in _targets(text, name)}):
        if not _is_page(path) and (ROOT / path).is_file():
            copied = File.generated(config, _uri(path), abs_src_path=str(ROOT / path))
            files.append(copied)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page in docs/ to where the site has what lies outside."""
    if page.file.generated_by:
        return markdown
    return for_site(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def for_site(text: str, name: str, uri: str) -> str:
    """Return the text of the repository's file `name`, with links as the site's `uri` needs them.

    A link to what isn't there stays as it is, and MkDocs refuses it.
    """

    def led(link: re.Match[str]) -> str:
        path = _resolved(link["target"], name)
        if path is None or not (ROOT / path).exists():
            return link[0]
        text = link["text"] or ""
        if text[1:] in {link["target"], os.path.basename(path)} and path.endswith(".md"):
            text = f"[{_title(path)}"
        place = os.path.relpath(_uri(path), os.path.dirname(uri) or ".")
        return f"{text}]({place}{link['rest']}"

    return _LINK.sub(led, text)


def _targets(text: str, name: str) -> Iterator[str]:
    return filter(None, (_resolved(link["target"], name) for link in _LINK.finditer(text)))


def _resolved(target: str, name: str) -> str | None:
    """Return the path in the repository that a link leads to; None where it leads elsewhere."""
    if _ELSEWHERE.match(target):
        return None
    path = os.path.normpath(os.path.join(os.path.dirname(name), target))
    return None if path.startswith("..") else path


def _title(path: str) -> str:
    found = _TITLE.search((ROOT / path).read_text(encoding="utf-8"))
    return found[1] if found else path


def _is_page(path: str) -> bool:
    return path in ROOT_PAGES or path.startswith("docs/")


def _uri(path: str) -> str:
    """Return where the site has a file of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return ROOT_PAGES.get(path, f"{COPIES}/{path}")
