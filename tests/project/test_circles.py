"""No file needs another that needs it, wherever the imports stand: also for types alone."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import baq_cli


def imports(package: Path) -> dict[str, set[str]]:
    """Return what each module of a package takes from which other, by their dotted names.

    Imports within functions and under TYPE_CHECKING count as any.
    """
    files = {_name(path, package): path for path in package.rglob("*.py")}
    return {name: _imported(name, path, set(files)) for name, path in files.items()}


def _name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(name: str, path: Path, modules: set[str]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports by a relative name"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in modules else str(node.module))
    return found & modules - {name}


def circle(package: Path) -> list[str]:
    """Return the modules of one circle of imports, the first again at the end; [] without any."""
    try:
        TopologicalSorter(imports(package)).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_file_needs_one_that_needs_it() -> None:
    assert circle(Path(baq_cli.__file__).parent) == []


def test_an_import_for_types_alone_closes_a_circle(tmp_path: Path) -> None:
    package = tmp_path / "house"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from house import b\n")
    (package / "b.py").write_text("def later():\n    import house.c\n")
    (package / "c.py").write_text("")
    assert circle(package) == []
    (package / "c.py").write_text("if TYPE_CHECKING:\n    from house.a import Name\n")
    assert {*circle(package)} == {"house.a", "house.b", "house.c"}
