"""The documentation's pages as a reader takes them: files to write, commands to run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from support.places import REPOSITORY

PAGES = {
    page.relative_to(REPOSITORY).as_posix(): page
    for page in [
        REPOSITORY / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
        *sorted((REPOSITORY / "docs").glob("*.md")),
    ]
}
NEEDS = ("robot", "card", "cluster", "network", "screen", "OpenGL")
_FENCED = re.compile(
    r"(?:^ *<!-- needs: (?P<needs>[^\n]*?) -->\n\n?)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_NAMED = re.compile(r"# (?P<name>[\w-]+\.(?:yaml|py))\b")
_COMMENT = re.compile(r"(?:^|\s+)#(?!SBATCH).*")
_PROMPT = "$ "
LATER = "…"
"""What a page leaves to the reader."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, without its indentation."""

    page: str
    language: str
    text: str
    needs: str | None
    """What the block can't be run without, as the page says it, of `NEEDS`."""

    @property
    def file_name(self) -> str | None:
        """The file that the block is, where its first line says so: `# arm.yaml`."""
        named = _NAMED.match(self.text)
        return named and named["name"]


@dataclass(frozen=True)
class Command:
    """A command of a page, and the lines that the page shows of its output."""

    block: Block
    text: str
    shown: tuple[str, ...] = ()


def blocks(page: str) -> Iterator[Block]:
    """Give the fenced blocks of a page, in order."""
    for found in _FENCED.finditer(PAGES[page].read_text(encoding="utf-8")):
        indent = len(found["indent"])
        text = "".join(line[indent:] for line in found["text"].splitlines(keepends=True))
        yield Block(page, found["language"], text, found["needs"])


def commands(block: Block) -> Iterator[Command]:
    """Give the commands of a block that is no file and no program.

    In a block with prompts the other lines are output; in one without, every line is a command.
    """
    if block.language:
        return
    text = block.text.replace("\\\n", " ")
    if not text.startswith(_PROMPT):
        for line in text.splitlines():
            if command := _COMMENT.sub("", line).strip():
                yield Command(block, command)
        return
    for part in re.split(rf"^{re.escape(_PROMPT)}", text, flags=re.MULTILINE)[1:]:
        first, *shown = part.splitlines()
        yield Command(block, first.strip(), tuple(line for line in shown if line.strip()))


def lines(block: Block) -> Iterator[Command]:
    """Give a block's commands, with the one that a recipe file has in its first line."""
    yield from commands(block)
    if block.language == "yaml" and block.text.startswith("# baq "):
        yield Command(block, block.text.partition("\n")[0].removeprefix("# "))


def file_of(block: Block) -> str | None:
    """Return the name of the file that a block of YAML is, by its first line."""
    given = re.search(r"--recipe (\S+\.yaml)", block.text.split("\n")[0])
    name = block.file_name or (given and given[1])
    return name if block.language == "yaml" else None


def is_baq(line: str) -> bool:
    return re.match(r"(?:exec |srun |[A-Z_]+=\S* )*baq ", line) is not None


def words_in(block: Block) -> Iterator[list[str]]:
    """Give the words behind each `baq` of a block, without what the shell does to them."""
    for line in lines(block):
        text = re.sub(r"\$[A-Z_]+", "0", line.text)
        for part in filter(is_baq, re.split(r"; | && | \| ", text)):
            yield shlex.split(part.partition("baq ")[2])


def inline(page: str) -> list[str]:
    """Return what a page sets as code within its text."""
    text = re.sub(r"^ *```.*?^ *```$", "", PAGES[page].read_text("utf-8"), flags=re.M | re.S)
    return re.findall(r"`([^`\n]+)`", text)
