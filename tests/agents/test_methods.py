"""What `baq methods` says of each method: held against the method itself, for every one there is.

Nothing here names what a method must be; a method that is added is held to all of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from baq_cli.agents.base import FAMILIES
from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.bench import cost
from baq_cli.cli.cards import SECTIONS, blocks, card_of, needed_of, parse_card
from baq_cli.errors import UsageError
from baq_cli.recipes.closed import AgentConfig
from baq_cli.recipes.keys import Key, keys_of
from baq_cli.recipes.load import resolve

Command = Callable[..., tuple[int, str, str]]
EVERY_METHOD = pytest.mark.parametrize("name", METHODS)

# -- cards


@EVERY_METHOD
def test_a_docstring_is_a_card_with_the_sections_that_its_phases_need(name: str) -> None:
    method = METHODS[name]
    card = card_of(method)
    assert set(card.sections) == set(needed_of(method)), "no more than these either"
    assert list(card.sections) == [h for h in SECTIONS.values() if h in card.sections], "in order"
    assert re.search(r"\b(19|20)\d\d$", card.paper), "authors and year"
    assert method.family in FAMILIES
    for heading in ("Offline", "Online"):
        if heading in card.sections:
            text = card.sections[heading]
            assert "same losses" in text or any(block[0] == " " for block in blocks(text))


@EVERY_METHOD
def test_a_card_names_keys_that_its_method_has(name: str) -> None:
    card, keys = card_of(METHODS[name]), {key.name for key in keys_of(METHODS[name].Config)}
    quoted = re.findall(r"`([^`]+)`", "\n".join([card.summary, *card.sections.values()]))
    assert {words.partition(":")[0] for words in quoted} <= keys


def test_a_card_is_read_as_it_is_written() -> None:
    card = parse_card(
        """It (A, B 2020, arXiv 2001.00001): a method (of a kind).

        More of it.

        Offline:
            π   −log π(a|s)
                more of the line
        And prose that
        goes on.

        Departures: none
        at all.
        """
    )
    assert (card.paper, card.arxiv) == ("A, B 2020", "2001.00001")
    assert card.summary.endswith("More of it.")
    assert blocks(card.sections["Offline"]) == [
        "    π   −log π(a|s)\n        more of the line",
        "And prose that goes on.",
    ]
    assert blocks(card.sections["Departures"]) == ["none at all."]


@pytest.mark.parametrize(
    ("docstring", "said"),
    [
        ("It: a method without a paper.\n\nDepartures: none.", "begins"),
        ("It (A 2020).\n\nOnline: x.\n\nOnline: y.\n\nDepartures: none.", "twice"),
        ("It (A 2020).\n\nOffline: x.\n\nDepartures: none.", "lacks 'Online:'"),
        ("It (A 2020).\n\nOnline: x.", "lacks 'Departures:'"),
        (None, "begins"),
    ],
)
def test_a_docstring_that_is_no_card_is_told(docstring: str | None, said: str) -> None:
    odd = type("Odd", (METHODS["sac"],), {"__doc__": docstring})
    with pytest.raises(ValueError, match=said):
        card_of(odd)


# -- keys


@EVERY_METHOD
def test_every_key_is_explained_and_takes_its_default(name: str) -> None:
    for key in keys_of(METHODS[name].Config):
        assert key.meaning, f"{name}.{key.name} has no description, nor has what it overrides"
        assert key.type
        resolve([{"algo": name, name: nested(key.name, key.default)}], method_configs())


@EVERY_METHOD
def test_a_key_that_is_not_shown_is_refused(name: str) -> None:
    config = METHODS[name].Config
    shown = {key.name for key in keys_of(config)}
    inside = {key.rpartition(".")[0] for key in shown} - {""}
    for place in ("", *(f"{section}." for section in inside)):
        for key in {place + known for known in AgentConfig.model_fields} - shown:
            with pytest.raises(UsageError):
                resolve([{"algo": name, name: nested(key, 1)}], method_configs())


@EVERY_METHOD
def test_a_range_is_where_values_begin_to_be_refused(name: str) -> None:
    for key in keys_of(METHODS[name].Config):
        for sign, bound in re.findall(r"([≥≤<>]) ([^\s,]+)", key.range):
            if "integers" in key.type:
                continue  # the range is of each number in the list
            inside, outside = float(bound), float(bound) + (1 if sign in "≤<" else -1)
            number = int if "integer" in key.type else float
            assert accepted(name, key, number(inside)) == (sign in "≥≤")
            assert not accepted(name, key, number(outside))


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def accepted(name: str, key: Key, value: float) -> bool:
    try:
        resolve([{"algo": name, name: nested(key.name, value)}], method_configs())
    except UsageError as error:
        return not re.search(rf"'{re.escape(f'{name}.{key.name}')}['.]", str(error))
    return True


# -- costs


def test_operations_are_those_of_the_layers_and_in_proportion_to_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """BC is one network: 2 operations a weight forwards, 4 backwards, 2 of these not at inputs."""
    first, others = 17 * 256, 256 * 256 + 256 * 6
    assert cost.operations("bc", "offline") == cost.ROWS * (4 * first + 6 * others)
    iql = cost.operations("iql", "offline")
    monkeypatch.setattr(cost, "ROWS", 8 * cost.ROWS)
    assert cost.operations("iql", "offline") == 8 * iql


def test_the_cost_of_an_environment_step_counts_its_gradient_steps() -> None:
    found = cost.costs(["iql", "adaptive_bc", "bc", "sac"])
    assert found["iql"] == cost.Cost(1.0, 1.0)
    assert found["bc"].env_step is None
    assert found["sac"].gradient_step is None
    ten = found["adaptive_bc"]  # `utd` is 10, and its losses are the same in both phases
    assert ten.gradient_step is not None
    assert ten.env_step == pytest.approx(10 * ten.gradient_step)


# -- the commands


def test_the_list_has_every_method_with_what_it_says_of_itself(baq_here: Command) -> None:
    status, out, _ = baq_here("methods", "--json")
    assert status == 0
    rows = {row["method"]: row for row in json.loads(out)}
    assert set(rows) == set(METHODS)
    for name, method in METHODS.items():
        row = rows[name]
        assert (row["title"], row["family"]) == (method.title, method.family)
        assert ("offline" in row["phases"]) == method.learns_offline
        assert (row["cost"]["gradient_step"] is None) != method.learns_offline
        assert (row["cost"]["env_step"] is None) != method.learns_online


def test_a_list_and_a_card_are_shown_in_words(
    baq_here: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "costs", lambda names: {n: cost.Cost(2.0, None) for n in names})
    plain, listed = baq_here("methods")[1], baq_here("methods", "list")[1]
    assert plain == listed
    assert re.search(r"^iql +IQL +policy constraint .* 2\.0× +– +arXiv 2110\.06169", plain, re.M)
    shown = baq_here("methods", "show", "cql")[1]
    assert "\n    Q_i   mean_B[(Q_i(s, a) − y)²] + α_c gap_i" in shown
    assert "\nAt the hand-over: the losses stay as they are;" in shown
    assert re.search(r"cql_weight +number +10\.0 +≥ 0 +α_c, the penalty's weight", shown)
    facts = json.loads(baq_here("methods", "show", "cql", "--json")[1])
    assert {"hidden", "cql_weight"} <= {key["name"] for key in facts["keys"]}
    assert facts["departures"].startswith("critics, policy")


def test_an_unknown_method_is_told_the_nearest(baq_here: Command) -> None:
    status, out, said = baq_here("methods", "show", "calql")
    assert (status, out) == (2, "")
    assert "unknown method 'calql'; did you mean 'cal_ql'?" in said
