"""Methods and recipe keys as their files declare them, read without running them.

A method's file imports PyTorch, which takes longer than a shell's completion may. Its class bodies
are read as syntax instead. `tests/cli/test_completion.py` holds what is found against the real
classes.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from baq_cli.units import Phase

PACKAGE = "baq_cli"
ROOT = Path(__file__).parents[1]
AGENTS, CLOSED, SCHEMA = "agents", "recipes.closed", "recipes.schema"
MOST_STEPS = 50
"""How far names are followed, from one that stands for another."""


@dataclass(frozen=True)
class Key:
    """A recipe's key: its choices and its default as YAML has them, and what it means."""

    name: str
    choices: tuple[str, ...] = ()
    default: str | None = None
    meaning: str = ""

    def values(self) -> list[str]:
        """Return what may stand behind the key, as far as it can be listed; the default first."""
        first = [] if self.default is None else [self.default]
        return list(dict.fromkeys([*first, *self.choices]))


def method_names() -> list[str]:
    """Return the names of all methods, sorted."""
    return sorted(_methods())


def named(algos: Sequence[str], phase: Phase | None = None) -> list[str]:
    """Return the methods of a list in which `all` stands for every other one, or all of a phase."""
    others = [name for name in method_names() if name not in algos]
    others = [name for name in others if phase is None or learns(name, phase)]
    return [name for word in algos for name in (others if word == "all" else [word])]


def method_titles() -> dict[str, str]:
    """Return what methods are called in tables, by name, sorted."""
    return {name: str(_constant(cls, "title")) for name, cls in sorted(_methods().items())}


def learns(method: str, phase: Phase) -> bool:
    """Return whether a method has a phase. Raises LookupError for one that is unknown."""
    return bool(_constant(_methods()[method], f"learns_{phase}"))


def method_keys(method: str) -> list[Key]:
    """Return the keys of a method's section, those of sections inside it as `section.key`."""
    cls = _methods().get(method)
    config = cls and _member_class(cls, "Config")
    return list(_keys(config)) if config else []


def run_keys() -> list[Key]:
    """Return the keys of a recipe outside methods' sections, as `evaluation.episodes`."""
    return list(_keys(_class(SCHEMA, "RunConfig")))


def tune_keys() -> list[Key]:
    """Return the keys of a recipe's section `tune`."""
    return list(_keys(_class(SCHEMA, "TuneConfig")))


def shared_keys() -> list[Key]:
    """Return the keys that `shared` may have."""
    return list(_keys(_shared()))


# -- classes and names


@dataclass(frozen=True)
class Class:
    """A class as its file has it."""

    module: str
    node: ast.ClassDef = field(compare=False)


@cache
def _tree(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _methods() -> dict[str, Class]:
    """Return the classes of `agents/` that have a name and a title of their own."""
    found = {}
    for path in sorted((ROOT / AGENTS).glob("*.py")):
        module = f"{AGENTS}.{path.stem}"
        for node in _tree(module).body:
            if isinstance(node, ast.ClassDef):
                named = {name: value for name, _, value in _assigned(node.body) if value}
                if "name" in named and "title" in named:
                    found[str(ast.literal_eval(named["name"]))] = Class(module, node)
    return found


@cache
def _shared() -> Class:
    return _class(CLOSED, "AgentConfig")


def _class(module: str, name: str) -> Class:
    found = _named(module, name)
    if not isinstance(found, Class):
        raise LookupError(f"{module} has no class {name}")
    return found


def _assigned(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr | None, ast.expr | None]]:
    """Yield name, annotation and value of each assignment to one name."""
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.annotation, node.value
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, None, node.value


@cache
def _named(module: str, name: str) -> Class | tuple[str, ast.expr] | None:
    """Return what a name of a module stands for: a class, or an expression and where it stands."""
    tree = _tree(module)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return Class(module, node)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _named(str(node.module).partition(".")[2], alias.name)
    for known, _, value in _assigned(tree.body):
        if known == name and value is not None:
            return module, value
    return None


def _as_class(module: str, node: ast.expr | None, steps: int = MOST_STEPS) -> Class | None:
    """Return the class that an expression names, None where it names none of this program's."""
    if isinstance(node, ast.Subscript):
        return _as_class(module, node.value, steps)
    if isinstance(node, ast.Attribute):
        owner = _as_class(module, node.value, steps)
        return owner and _member_class(owner, node.attr)
    if isinstance(node, ast.Name) and steps:
        found = _named(module, node.id)
        return found if isinstance(found, Class) or not found else _as_class(*found, steps - 1)
    return None


def _bases(cls: Class) -> list[Class]:
    found = (_as_class(cls.module, base) for base in cls.node.bases)
    return [base for base in found if base]


def _lineage(cls: Class) -> Iterator[Class]:
    """Yield a class and those that it derives from, nearest first."""
    yield cls
    for base in _bases(cls):
        yield from _lineage(base)


def _member_class(cls: Class, name: str) -> Class | None:
    """Return a class that a class has inside it, or by assignment, its own or inherited."""
    for each in _lineage(cls):
        for node in each.node.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return Class(each.module, node)
        for known, _, value in _assigned(each.node.body):
            if known == name and value is not None:
                return _as_class(each.module, value)
    return None


def _constant(cls: Class, name: str) -> Any:
    """Return the literal that a class, or the nearest that it derives from, gives a name."""
    for each in _lineage(cls):
        for known, _, value in _assigned(each.node.body):
            if known == name and value is not None:
                return ast.literal_eval(value)
    return None


# -- keys


def _keys(config: Class, prefix: str = "", aside: frozenset[str] = frozenset()) -> Iterator[Key]:
    inside = []
    for name, (key, section) in _fields(config).items():
        if name in _unused(config) or name in aside:
            continue
        if section:
            inside.append((name, section))
        else:
            yield replace(key, name=prefix + name)
    for name, section in inside:  # what it shares with its method is set in the method's own
        of_method = _shared() in _lineage(section)
        shared = frozenset(_fields(_shared()) if of_method else ())
        yield from _keys(section, f"{prefix}{name}.", shared)


def _fields(config: Class) -> dict[str, tuple[Key, Class | None]]:
    """Return a configuration's fields in order, each as a key, or as the section that it holds."""
    found: dict[str, tuple[Key, Class | None]] = {}
    for cls in reversed(list(_lineage(config))):
        for name, annotation, value in _assigned(cls.node.body):
            if annotation is None or "ClassVar" in ast.unparse(annotation):
                continue
            before = found[name][0] if name in found else Key(name)
            default, meaning = _default(value)
            classes = (_as_class(cls.module, node) for node in _alternatives(annotation))
            section = next(filter(None, classes), None)
            choices = tuple(_choices(cls.module, annotation))
            found[name] = Key(name, choices, default, meaning or before.meaning), section
    return found


def _alternatives(annotation: ast.expr) -> list[ast.expr]:
    if isinstance(annotation, ast.BinOp):
        return [*_alternatives(annotation.left), *_alternatives(annotation.right)]
    return [annotation]


def _default(value: ast.expr | None) -> tuple[str | None, str]:
    """Return a field's default as JSON, None where it can't be read, and its description."""
    meaning = ""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "Field":
        said = {word.arg: word.value for word in value.keywords}
        meaning = str(_plain(said["description"]) or "") if "description" in said else ""
        value = value.args[0] if value.args else None
    try:
        text = json.dumps(_plain(value), separators=(",", ":")) if value else None
    except (ValueError, TypeError):
        return None, meaning
    return text if text is None or text[0] != '"' else text[1:-1], meaning


def _choices(module: str, node: ast.expr, steps: int = MOST_STEPS) -> Iterator[str]:
    """Yield the words that an annotation admits: those of a Literal, true and false, null."""
    if isinstance(node, ast.BinOp):
        yield from _choices(module, node.left, steps)
        yield from _choices(module, node.right, steps)
    elif isinstance(node, ast.Subscript):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if ast.unparse(node.value) == "Literal":
            yield from (str(ast.literal_eval(part)) for part in parts)
        elif ast.unparse(node.value) == "Annotated":
            yield from _choices(module, parts[0], steps)
    elif isinstance(node, ast.Constant) and node.value is None:
        yield "null"
    elif isinstance(node, ast.Name) and node.id == "bool":
        yield from ("true", "false")
    elif isinstance(node, ast.Name) and steps:
        found = _named(module, node.id)
        if isinstance(found, tuple):
            yield from _choices(*found, steps - 1)


def _unused(config: Class) -> frozenset[str]:
    """Return the keys that a configuration inherits without effect, as far as they are spelled."""
    for cls in _lineage(config):
        for name, _, value in _assigned(cls.node.body):
            if name == "unused" and value is not None:
                return frozenset(_words(cls.module, value))
    return frozenset()


def _words(module: str, value: ast.expr) -> Iterator[str]:
    """Yield the words of a set, and of the sets of other configurations that it is made with."""
    for node in ast.walk(value):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Attribute) and node.attr == "unused":
            owner = _as_class(module, node.value)
            yield from _unused(owner) if owner else ()


def _plain(node: ast.expr) -> Any:
    """Return a value that is written out; None where a name stands for it."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
