"""What the documentation's site is made of, beside its pages; `make docs` builds it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.cli.main import app
from baq_cli.recipes.keys import REQUIRED, keys_of, sections_of
from baq_cli.recipes.load import parse_overrides, resolve
from baq_cli.recipes.safety import WatchdogConfig
from baq_cli.recipes.schema import CompareConfig, RunConfig, TuneConfig
from baq_cli.recipes.shipped import open_recipe
from support.places import DOCS, REPOSITORY

CODE = re.compile(r"`([^`]+)`")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the modules of docs/site be imported, as the build imports them."""
    monkeypatch.setattr(sys, "path", [str(DOCS / "site"), *sys.path])


def defaults(values: dict[str, Any], name: str = "") -> Iterator[tuple[str, Any]]:
    """Give the keys of a recipe in dots, with their values; sections as such are left out."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from defaults(value, f"{name}{key}.")
        else:
            yield name + key, value


def test_every_key_of_a_run_is_shown_with_the_default_that_it_has() -> None:
    shown = {
        f"{section.name}.{key.name}".lstrip("."): key.default
        for section in sections_of(RunConfig)
        for key in section.keys
    }
    bare = dict(defaults(RunConfig(algo="iql").model_dump(mode="json")))
    sections = {section.name for section in sections_of(RunConfig) if section.optional}
    assert shown.pop("algo") is REQUIRED
    for key, value in bare.items():
        if key not in {"algo", *sections}:
            assert shown[key] == value, key
    assert {"intervention", "safety", "control", "guard.max_online_episodes_below"} <= sections
    assert shown["control.hz"] is REQUIRED
    assert shown["safety.watchdog.then"] == WatchdogConfig.model_fields["then"].default


@pytest.mark.parametrize("config", [RunConfig, CompareConfig, TuneConfig])
def test_every_section_says_what_it_is(config: Any) -> None:
    for section in sections_of(config):
        assert section.meaning.endswith(".")
        assert all(key.type for key in section.keys)


def known_keys() -> set[str]:
    of_methods = {f"{n}.{key.name}" for n, m in METHODS.items() for key in keys_of(m.Config)}
    of_runs = {
        f"{section.name}.{key.name}".lstrip(".")
        for section in sections_of(RunConfig)
        for key in section.keys
    }
    return of_methods | of_runs


def rows_of(page: str, head: str) -> Iterator[str]:
    """Give the right cells of the tables with a heading."""
    for table in re.findall(rf"^\| {head} .*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE):
        for row in table.splitlines():
            yield row.strip("|").split(" | ")[-1]


def test_settings_of_others_are_led_to_keys_that_there_are() -> None:
    page = (DOCS / "coming-from.md").read_text(encoding="utf-8")
    cells = list(rows_of(page, "setting there"))
    named = [word.partition("=")[0] for cell in cells for word in CODE.findall(cell)]
    not_keys = {"alpha_learning_rate", "auto"}  # what the other side calls it
    keys = known_keys()
    assert len(named) > 50
    assert [key for key in named if key not in keys | not_keys] == []


def test_rewards_that_corl_normalises_are_led_to_what_our_recipe_of_that_family_has() -> None:
    page = (DOCS / "coming-from.md").read_text(encoding="utf-8")
    (cell,) = [row for row in page.splitlines() if row.startswith("| `normalize_reward` ")]
    for words, family in zip(cell.split("on AntMaze"), ("mujoco", "antmaze"), strict=True):
        layer = parse_overrides([word for word in CODE.findall(words) if "." in word])
        told = resolve([{"algo": "iql"}, layer], method_configs()).method
        ours = resolve([open_recipe(f"{family}/compare"), {"algo": "iql"}], method_configs()).method
        for key in ("reward_scale", "reward_shift"):
            assert getattr(told, key) == getattr(ours, key), (family, key)


def commands(command: Any, path: str = "baq") -> Iterator[tuple[str, set[str]]]:
    """Give every command's words, with its options."""
    yield path, {name for parameter in command.params for name in parameter.opts}
    for name, inside in getattr(command, "commands", {}).items():
        yield from commands(inside, f"{path} {name}")


def test_commands_of_others_are_led_to_commands_that_there_are() -> None:
    there_are = dict(commands(typer.main.get_command(app)))
    page = (DOCS / "coming-from.md").read_text(encoding="utf-8")
    named = [line for line in CODE.findall(page) if line.startswith("baq ")]
    assert len(named) > 20
    for line in named:
        words = line.split()
        path = next(p for n in (3, 2) if (p := " ".join(words[:n])) in there_are)
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= there_are[path], line


@pytest.mark.parametrize(
    ("link", "name", "uri", "expected"),
    [
        ("[a](docs/data.md#scores)", "README.md", "index.md", "[a](data.md#scores)"),
        ("![a](docs/images/evidence.png)", "README.md", "index.md", "![a](images/evidence.png)"),
        ("[a](../README.md#speed)", "docs/data.md", "data.md", "[a](index.md#speed)"),
        ("[a](LICENSE)", "README.md", "index.md", "[a](files/LICENSE)"),
        (
            "[a](../../pyproject.toml)",
            "docs/reference/python.md",
            "reference/python.md",
            "[a](../files/pyproject.toml)",
        ),
        ("[docs/data.md](docs/data.md)", "README.md", "index.md", "[Data](data.md)"),
        ("[a](nowhere.md)", "docs/data.md", "data.md", "[a](nowhere.md)"),
        ("[a](https://x.org/b.md)", "docs/data.md", "data.md", "[a](https://x.org/b.md)"),
    ],
)
@pytest.mark.usefixtures("site")
def test_links_lead_to_the_same_place_on_the_site(
    link: str, name: str, uri: str, expected: str
) -> None:
    import outside

    assert outside.for_site(link, name, uri) == expected


def test_links_lead_to_files_that_there_are_on_a_forge_too() -> None:
    root = REPOSITORY
    pages = [*root.glob("*.md"), *DOCS.rglob("*.md")]
    dead = [
        f"{page.relative_to(root)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert len(pages) > 20
    assert dead == []


@pytest.mark.usefixtures("site")
def test_what_a_page_would_load_from_elsewhere_is_found_and_links_are_not() -> None:
    from no_network import loaded_from_elsewhere

    page = """<link rel="stylesheet" href="https://fonts.example/css"><a href="https://arxiv.org">
    <script src=//cdn.example/a.js></script><img alt="" src="https://x.example/a.png">
    <link rel="canonical" href="https://here.example"><script src="assets/a.js"></script>"""
    assert loaded_from_elsewhere(page) == [
        *("https://fonts.example/css", "//cdn.example/a.js", "https://x.example/a.png"),
    ]


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a | b", r"a \| b"),
        ("[−1, 1]", r"\[−1, 1\]"),
        ("LOW..HIGH, <text>", "LOW..HIGH, &lt;text&gt;"),
        ("keys `a_b` and a_b", r"keys `a_b` and a\_b"),
    ],
)
def test_a_cell_shows_text_as_it_is_written(text: str, cell: str) -> None:
    from markdown_tables import plain

    assert plain(text) == cell
