"""No test and no benchmark reads a private name of the package: what they hold, users can do."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import baq_cli
from support.places import DOCS, REPOSITORY, TESTS

SOURCE = (Path(baq_cli.__file__).parent, DOCS / "site")
READERS = (TESTS, REPOSITORY / "benchmarks")


def files(folders: Iterable[Path]) -> dict[Path, str]:
    """Return the content of every Python file below some folders."""
    found = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return {path: path.read_text("utf-8") for path in found}


def defined(codes: Iterable[str]) -> set[str]:
    """Return the private names that files give to functions, classes and what these hold."""
    found = set()
    for node in (node for code in codes for node in ast.walk(ast.parse(code))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return {name for name in found if name.strip("_") and name[0] == "_" != name[1]}


def privates_read(code: str, privates: set[str], own: set[str]) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each of `privates` that a file reads, sets or imports.

    What a class reads of itself may be among its `own`. A program in a string is read as a file.
    """
    tree = ast.parse(code)
    of_self = {
        node
        for body in ast.walk(tree)
        if isinstance(body, ast.ClassDef)
        for node in ast.walk(body)
        if isinstance(node, ast.Attribute) and _called(node.value) in {"self", "cls", "super"}
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Attribute) and not (node in of_self and node.attr in own):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("baq_cli"):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and _called(node).endswith("attr"):
            names = [part for argument in node.args for part in _text(argument).split(".")]
        elif "import" in (text := _text(node)):
            names = [name for _, name in _of_program(text, privates)]
        yield from ((node.lineno, name) for name in names if name in privates)


def _called(node: ast.AST) -> str:
    """Return the last name of an expression, of what is called where it is a call."""
    named = node.func if isinstance(node, ast.Call) else node
    return str(getattr(named, "attr", getattr(named, "id", "")))


def _text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _of_program(text: str, privates: set[str]) -> Iterator[tuple[int, str]]:
    try:
        yield from privates_read(text, privates, set())
    except SyntaxError:  # prose
        return


def test_tests_and_benchmarks_read_no_private_name_of_the_package() -> None:
    privates, readers = defined(files(SOURCE).values()), files(READERS)
    assert len(privates) > 100, "the test is of a package with private names"
    own = defined(readers.values())
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}: {name}"
        for path, code in readers.items()
        for line, name in privates_read(code, privates, own)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("code", "is_read"),
    [
        ("x._theirs", True),
        ("x.y._theirs.z()", True),
        ("x._theirs = 1", True),
        ("x._others", False),
        ("from baq_cli.x import _theirs", True),
        ("from other import _theirs", False),
        ("patch.setattr(x, '_theirs', 1)", True),
        ("patch.setattr('baq_cli.x.Y._theirs', 1)", True),
        ("def f(self): return self._shared", True),  # put into a class from without
        ("class Own:\n    def f(self): return self._shared", False),
        ("class Own(X):\n    def f(self): return self._theirs", True),
        ("run('from baq_cli.x import _theirs')", True),
        ("run('you import baq_cli.x, whose _theirs is private')", False),
    ],
)
def test_each_way_of_reading_one_is_found(code: str, is_read: bool) -> None:
    privates = defined(["def _theirs(): ...", "class X:\n    def f(self): self._shared = 1"])
    assert bool([*privates_read(code, privates, own={"_shared"})]) == is_read
