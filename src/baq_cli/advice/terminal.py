"""Advice in the terminal: the numbers first, then what follows, then what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from baq_cli.report.names import printable_lines
from baq_cli.units import amount

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

UNTOLD = "too close to tell"
SHOWN = 5
"""Fine-tunings that are shown; the JSON document has all."""
COLORS = {"superior": "green", "comparable": "yellow", "inferior": "red", None: "magenta"}


def advice_text(document: Mapping[str, Any]) -> Group:
    """Return a document of advice, as Rich prints it."""
    from rich.console import Group

    parts = _of_policy(document) if document["checkpoint"] else _of_data(document)
    return Group(*parts)


# -- a policy beside its data


def _of_policy(document: Mapping[str, Any]) -> Iterator[Any]:
    seeds = ", ".join(str(each["seed"]) for each in document["seeds"])
    where = f" in {document['environment']}" if document["environment"] else ""
    policy = f"{document['checkpoint']} ({document['algo']}, {document['phase']}, seeds {seeds})"
    yield _text(f"{policy}{where}, beside {document['dataset']}\n")
    yield _numbers(document)
    yield _text("")
    yield from _verdict(document)
    yield _text("")
    for sentence in document["because"]:
        yield _text(sentence)
    if document["options"]:
        yield _text("")
        yield _options(document["options"][:SHOWN])
        yield _text("")
        for option in document["options"][:SHOWN]:
            yield _text(option["command"], "bold")
    if document["doubts"]:
        yield _text("\nWhat speaks against leaning on this:", "bold")
        for doubt in document["doubts"]:
            yield _text(f"- {doubt}")
    yield _text(f"\nThis is advice: {document['rule']}.", "dim")


def _numbers(document: Mapping[str, Any]) -> Table:
    sides = {"policy": document["policy"], "data": document["data_return"]}
    decimals = _decimals([each["mean"] for each in sides.values()])
    table, seeds = _table(), document["seeds"]
    for heading in ("", document["unit"], "95 % interval", "std", "episodes", "regime"):
        table.add_column(heading, justify="left" if heading in ("", "regime") else "right")

    def row(name: str, each: Mapping[str, Any], *others: str) -> None:
        table.add_row(name, f"{each['mean']:,.{decimals}f}", _interval(each, decimals), *others)

    for name, each in sides.items():
        spread = "–" if each["std"] is None else f"{each['std']:,.{decimals}f}"
        row(name, each, spread, f"{each['episodes']:,}")
    row("difference", document["difference"], "", "", document["regime"] or UNTOLD)
    if len(seeds) > 1:
        count = document["policy"]["episodes"] // len(seeds)
        for each in seeds:
            row(f"seed {each['seed']}", each, "", f"{count:,}", each["regime"] or UNTOLD)
    return table


def _verdict(document: Mapping[str, Any]) -> Iterator[Text]:
    regime, chances, margin = document["regime"], document["chances"], document["margin"]
    left = "" if regime or chances is None else f" ({' or '.join(document['possible'])})"
    yield _text(f"Regime: {regime or UNTOLD}{left}", f"bold {COLORS[regime]}")
    if chances is None:
        yield _text("Fewer than five episodes of either say too little.")
    else:
        above = _chance("P(policy > data)", document["probability_policy_above_data"])
        said = ", ".join(_chance(name, p) for name, p in chances.items())
        size = f"{margin['value']:,.{_decimals([margin['value']])}f}"
        yield _text(
            f"{above}; {said}, where a difference of up to {size} counts as "
            f"none ({margin['share']:.0%} of the span {margin['of']})."
        )
    if regime is None:
        yield _text(_more(document))
    if document["scores"]:
        yield _text(
            "Normalised by {reference}: policy {policy:.1f}, data {data:.1f}.".format(
                **document["scores"]
            )
        )


def _more(document: Mapping[str, Any]) -> str:
    more = document["more_episodes"]
    if more is None:
        return "If means and spreads stay, no number of the policy's episodes would tell."
    whose = "of the data" if document["estimated"] else "of the policy, a seed,"
    return f"If means and spreads stay, about {amount(more, 'more episode')} {whose} would tell."


def _options(options: Sequence[Mapping[str, Any]]) -> Table:
    table = _table()
    for heading in ("method", "with", "dataset in a batch", "warm-up", "its constraint"):
        table.add_column(heading)
    for option in options:
        anchors = option["anchors"]
        settings = " ".join(f"{key}={value:g}" for key, value in option["settings"].items())
        warmup = anchors["warmup_env_steps"]
        table.add_row(
            _text(option["method"] + (" (from scratch)" if option["scratch"] else "")),
            settings or "as it is",
            _share(anchors),
            amount(warmup, "step") if warmup else "–",
            anchors["constraint"] if anchors["constraint"] != "none" else "–",
        )
    return table


def _share(anchors: Mapping[str, Any]) -> str:
    if not anchors["data"]:
        return "–"
    share = anchors["data_share"]
    return "by the rows there are" if share is None else f"{share:.0%}"


# -- data alone


def _of_data(document: Mapping[str, Any]) -> Iterator[Any]:
    made = document["data_environment"]
    yield _text(document["dataset"] + (f", made in {made}" if made else "") + "\n")
    yield _traits(document["data"])
    decimals = _decimals([document["superior_above"], document["inferior_below"]])
    above, below = (
        f"{document[name]:,.{decimals}f}" for name in ("superior_above", "inferior_below")
    )
    yield _text(
        f"\nA policy above {above} would be better than these data, one below {below} worse.\n"
    )
    table = _table()
    for heading in ("first", "methods", "why"):
        table.add_column(heading, overflow="fold")
    for place, each in enumerate(document["pretrain"], 1):
        table.add_row(f"{place}", _text(", ".join(each["methods"])), each["why"])
    yield table
    yield _text("")
    for command in document["commands"]:
        yield _text(command, "bold")


def _traits(data: Mapping[str, Any]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(show_header=False, box=box.SIMPLE, show_edge=False)
    for name, value in _lines(data):
        table.add_row(name, _text(value))
    return table


def _lines(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    decimals = _decimals(list(data["return_quantiles"].values()))
    quantiles = "  ".join(f"{q}: {v:,.{decimals}f}" for q, v in data["return_quantiles"].items())
    yield "episodes", f"{data['episodes']:,}, {amount(data['env_steps'], 'step')}"
    mean, std = (f"{data[name]:,.{decimals}f}" for name in ("return_mean", "return_std"))
    alike = "of one quality" if data["alike"] else "of mixed quality"
    yield "raw return", f"{mean} ± {std} over episodes, {alike} ({data['spread']:.0%} of the span"
    yield "", f"{data['scale_of']})"
    yield "", quantiles
    cut = "" if data["cut_after"] is None else f"; the longest are cut after {data['cut_after']:,}"
    yield "ends", f"{data['terminated']:.0%} of episodes end themselves, the others are cut{cut}"
    low, high = data["reward_range"]
    kind = "all the same" if not data["rewarded"] else "sparse" if data["sparse"] else "dense"
    changes = f"{data['reward_changes']:.1%} differ from the most common one"
    yield "rewards", f"{kind}, {low:g} to {high:g}; {changes}"
    bounds = f"{data['actions_on_bounds']:.1%} of actions on a bound"
    yield "actions", f"{data['action_coverage']:.0%} of their range, {bounds}"
    if data["action_noise"] is not None:
        kind = "nearly deterministic" if data["deterministic"] else "varied"
        left = f"{min(1.0, data['action_noise']):.0%} of the actions' variance, at most, is chance"
        yield "behaviour", f"{kind}: {left}"


# -- parts


def _interval(each: Mapping[str, Any], decimals: int) -> str:
    if each["low"] is None:
        return "–"
    return f"[{each['low']:,.{decimals}f}, {each['high']:,.{decimals}f}]"


def _chance(name: str, p: float) -> str:
    bound = "> 0.999" if p > 0.999 else "< 0.001" if p < 0.001 else f"= {p:.3f}"
    return f"{name} {bound}"


def _decimals(values: Sequence[float]) -> int:
    largest = max(map(abs, values), default=0.0)
    return 3 if largest < 10 else 1 if largest < 10_000 else 0


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)


def _text(plain: str, style: str = "") -> Text:
    """Return text that Rich prints as it is: a name may hold brackets."""
    from rich.text import Text

    return Text(printable_lines(plain), style=style)
