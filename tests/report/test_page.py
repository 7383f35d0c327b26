"""The page of a comparison, in a real browser: what it draws, says, hides, and refuses to run."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from baq_cli.errors import DataError
from baq_cli.report.page import embedded, write_page
from baq_cli.report.page_view import DASHES, SYMBOLS, method_styles
from baq_cli.report.style import DASHES as FIGURE_DASHES
from baq_cli.report.style import MARKERS
from baq_cli.report.wording import fixed
from baq_cli.units import decimals
from support.browser import Page, start
from support.documents import (
    HOSTILE,
    compared,
    far_below,
    hostile,
    rich,
    single,
    statistic,
    thousand,
)

DOCUMENTS = {"rich": rich, "hostile": hostile, "single": single, "thousand": thousand}
LARGEST = 15e6
"""Bytes of the page of a thousand runs, at most."""


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    driver = start()
    yield driver
    driver.quit()


@pytest.fixture
def opened(
    driver: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[dict[str, Any]], Page]]:
    """Write a document's page and open it, 1280 wide and light."""

    def opened(document: dict[str, Any]) -> Page:
        path = write_page(document, tmp_path_factory.mktemp("page") / "report.html")
        return Page(driver, path)

    light = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", light)
    yield opened
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


# -- the page as a whole


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_figure_is_drawn_and_nothing_is_said_or_asked_for(
    name: str, opened: Callable[..., Page]
) -> None:
    page = opened(DOCUMENTS[name]())
    count = page.draw_all()
    aggregates = 0 if name == "single" else 3
    assert count == len(DOCUMENTS[name]()["tasks"]) + aggregates
    assert sorted(page.js("return baqReport.drawn")) == sorted(
        page.js("return [...document.querySelectorAll('.figure')].map((figure) => figure.id)")
    )
    assert page.js("return baqReport.failed") == []
    assert all(of for of in page.traces()), "a figure without a line"
    for button in ("button.mode:last-child", "button.theme", "button.method"):
        if page.all(button):
            page.click(button)
    assert page.said() == []
    assert page.requested() <= {"file", "data", "blob"}
    assert page.js("return performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("name", ["rich", "hostile", "single"])
def test_the_page_never_scrolls_sideways(name: str, opened: Callable[..., Page]) -> None:
    page = opened(DOCUMENTS[name]())
    page.js("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    page.draw_all()
    for width in (1280, 800):
        page.resize(width)
        page.wait(
            "return [...document.querySelectorAll('.plot')].every((plot) => "
            "plot._fullLayout.width === plot.clientWidth)"
        )
        inside = page.js("return document.documentElement.clientWidth")
        assert width - 20 <= inside <= width  # a scroll bar's width may be gone
        assert page.js("return document.documentElement.scrollWidth") == inside


def test_figures_are_drawn_when_they_come_near(opened: Callable[..., Page]) -> None:
    page = opened(rich())
    page.wait("return baqReport.drawn.includes('curves-0')")
    assert "efficiency" not in page.js("return baqReport.drawn")


def test_a_thousand_runs_stay_small(tmp_path: Path) -> None:
    document = thousand()
    begin = time.perf_counter()
    path = write_page(document, tmp_path / "report.html")
    took, size = time.perf_counter() - begin, path.stat().st_size
    print(f"a thousand runs: {took:.1f} s, {size / 1e6:.1f} MB")
    assert size < LARGEST


def test_a_page_that_cant_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match=r"report\.html"):
        write_page(single(), tmp_path / "taken" / "report.html")


# -- choices


def test_a_click_hides_a_method_everywhere_and_a_second_shows_it(
    opened: Callable[..., Page],
) -> None:
    page = opened(rich())
    page.draw_all()
    everything = page.methods_shown()
    assert everything == [{0, 1, 2, 3}] * 5
    assert len(page.all(".matrix [data-method='1']:not([hidden])")) == 1 + 1 + 4
    page.click("button.method", 1)
    assert page.all("button.method")[1].get_attribute("aria-pressed") == "false"
    assert page.methods_shown() == [{0, 2, 3}] * 5
    assert page.all(".matrix [data-method='1']:not([hidden])") == []
    page.click("button.method", 1)
    assert page.all("button.method")[1].get_attribute("aria-pressed") == "true"
    assert page.methods_shown() == everything


def test_a_figure_that_is_drawn_late_knows_what_is_hidden(opened: Callable[..., Page]) -> None:
    page = opened(rich())
    page.click("button.method", 0)
    page.draw_all()
    assert page.methods_shown() == [{1, 2, 3}] * 5


def test_none_hides_all_and_all_shows_them(opened: Callable[..., Page]) -> None:
    page = opened(rich())
    page.draw_all()
    page.click("button.all", 1)
    assert page.methods_shown() == [set()] * 5
    page.click("button.all", 0)
    assert page.methods_shown() == [{0, 1, 2, 3}] * 5
    assert page.said() == []


def test_the_keyboard_hides_a_method_too(opened: Callable[..., Page]) -> None:
    page = opened(rich())
    page.draw_all()
    page.js("scrollTo(0, 0)")
    page.all("button.method")[2].send_keys(" ")
    page.settle()
    assert page.methods_shown() == [{0, 1, 3}] * 5


def test_the_switch_shows_each_seed_instead_of_the_band(opened: Callable[..., Page]) -> None:
    page = opened(rich())
    page.draw_all()

    def parts() -> dict[str, int]:
        first = [meta["part"] for meta in page.traces()[0]]
        return {part: first.count(part) for part in ("mean", "band", "seed", "dataset")}

    curves = 4 * 2  # methods, phases
    assert parts() == {"mean": curves, "band": curves, "seed": 0, "dataset": 2}
    page.click("button.mode", 1)
    assert parts() == {"mean": curves, "band": 0, "seed": curves * 5, "dataset": 2}
    page.click("button.mode", 0)
    assert parts()["seed"] == 0


def test_a_zoom_outlives_a_choice_until_a_double_click(opened: Callable[..., Page]) -> None:
    from selenium.webdriver import ActionChains

    page = opened(rich())
    page.draw_all()
    plot = page.all(".plot")[0]
    page.js("arguments[0].scrollIntoView({block: 'center'})", plot)
    span = "return document.querySelector('.plot')._fullLayout.xaxis2.range"
    whole = page.js(span)
    drag = ActionChains(page.driver).move_to_element_with_offset(plot, 100, -50)
    drag.click_and_hold().move_by_offset(150, 90).release().perform()
    page.wait(f"return ((range) => range[1] - range[0])((() => {{ {span} }})()) < 50000")
    zoomed = page.js(span)
    page.click("button.method", 0)
    assert page.js(span) == zoomed
    ActionChains(page.driver).move_to_element_with_offset(plot, 100, -50).double_click().perform()
    page.wait(f"return (() => {{ {span} }})()[0] === arguments[0]", whole[0])
    assert page.js(span) == whole


def test_scores_out_of_sight_are_told_of_and_a_double_click_shows_them(
    opened: Callable[..., Page],
) -> None:
    from selenium.webdriver import ActionChains

    page = opened(far_below(rich()))
    page.draw_all()
    low = "document.querySelector('.plot')._fullLayout.yaxis.range[0]"
    told = [caption.text for caption in page.all("figcaption")]
    assert ["↓ −20,000" in text for text in told[:2]] == [True, False]
    assert page.js(f"return {low}") > -2_000
    page.click("button.mode", 1)
    assert page.js(f"return {low}") > -2_000
    plot = page.all(".plot")[0]
    page.js("arguments[0].scrollIntoView({block: 'center'})", plot)
    ActionChains(page.driver).move_to_element_with_offset(plot, 100, -50).double_click().perform()
    page.wait(f"return {low} < -20_000")


def test_dark_is_dark_by_preference_and_by_the_button(opened: Callable[..., Page]) -> None:
    page = opened(rich())
    page.draw_all()
    paper = "return document.querySelector('.plot')._fullLayout.paper_bgcolor"
    light, light_paper = page.background(), page.js(paper)
    page.prefer("dark")
    changed = "return getComputedStyle(document.body).backgroundColor !== arguments[0]"
    page.wait(changed, light)
    page.settle()
    dark, dark_paper = page.background(), page.js(paper)
    assert brightness(dark) < 60 < 200 < brightness(light)
    assert light_paper != dark_paper
    page.click("button.theme")
    assert (page.background(), page.js(paper)) == (light, light_paper)


def brightness(color: str) -> float:
    red, green, blue = (int(part) for part in re.findall(r"\d+", color)[:3])
    return (red + green + blue) / 3


# -- names


def test_hostile_names_are_text_and_run_nothing(opened: Callable[..., Page]) -> None:
    page = opened(hostile())
    page.draw_all()
    buttons = [button.get_attribute("textContent") for button in page.all("button.method")]
    assert buttons == list(HOSTILE)
    assert page.js("return document.querySelector('h1').textContent") == HOSTILE[3]
    assert page.js("return typeof window.__pwned") == "undefined"
    targets = [link.get_attribute("href").split("#")[0] for link in page.all("a")]
    assert set(targets) <= {page.driver.current_url.split("#")[0]}
    assert page.all("img") == page.all("b") == page.all("svg a") == []
    assert page.js("return document.scripts.length") == 1 + 1 + 4  # head, data, Plotly and ours
    assert page.said() == []


def test_a_hovered_point_tells_a_hostile_name_literally(opened: Callable[..., Page]) -> None:
    page = opened(hostile())
    page.draw_all()
    hovered = """
    const [method, text] = arguments, plot = document.querySelector(".plot");
    const shown = ({meta, xaxis}) => meta.method === method && meta.part === "mean" &&
      xaxis === "x2";
    Plotly.Fx.hover(plot, [{curveNumber: plot.data.findIndex(shown), pointNumber: 2}], "x2y");
    const labels = [...plot.querySelectorAll(".hoverlayer .hovertext")];
    return labels.length === 1 && labels[0].textContent.startsWith(text);
    """
    for i, name in enumerate(HOSTILE[:4]):  # a label comes a moment after its point
        page.wait(hovered, i, f"{name} · mean ± std over 2 seeds40,000 environment steps online")
    assert page.all(".hoverlayer a") == []


def test_the_policy_refuses_requests_and_scripts_of_others(opened: Callable[..., Page]) -> None:
    page = opened(single())
    refused = page.driver.execute_async_script(
        """
        const done = arguments[0], refused = [];
        addEventListener("securitypolicyviolation", (of) => refused.push(of.effectiveDirective));
        const script = document.createElement("script");
        script.textContent = "window.__pwned = 1";
        document.body.append(script);
        const image = new Image();
        image.src = "http://127.0.0.1:9/x.png";
        fetch("http://127.0.0.1:9/").catch(() => setTimeout(() => done(refused.sort()), 200));
        """
    )
    assert refused == ["connect-src", "img-src", "script-src-elem"]
    assert page.js("return typeof window.__pwned") == "undefined"


# -- numbers


def shown_number(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


def test_the_tables_hold_the_documents_numbers(opened: Callable[..., Page]) -> None:
    document = rich()
    page = opened(document)
    rows = page.js(
        """return [...document.querySelectorAll("#task-0 .statistics tbody tr")].map((row) =>
        [...row.cells].map((cell) => [cell.innerHTML.includes("<strong>"),
          [...cell.childNodes].map((part) => part.textContent)]))"""
    )
    powers = page.js(
        """return [...document.querySelectorAll("#task-0 .statistics thead th")].map((cell) =>
        Number(cell.querySelector("sup")?.textContent ?? 0))"""
    )
    for method, row in zip(document["methods"], rows, strict=True):
        results = document["tasks"][0]["methods"][method]
        for j, name in enumerate(document["statistics"], start=1):
            expected, (bold, parts) = results["statistics"][name], row[j]
            assert bold == (name in results["best_in"])
            if expected["mean"] is None:
                assert parts == ["–", "2 of 5 seeds", "never in 3"]
                continue
            numbers = [parts[0], *parts[1].strip("[]").split(", ")]
            for text, key in zip(numbers, ("mean", "low", "high"), strict=True):
                unit = 10.0 ** (powers[j] - len(text.partition(".")[2]))
                value = shown_number(text) * 10.0 ** powers[j]
                assert value == pytest.approx(expected[key], abs=0.51 * unit)
        assert row[-1][1] == ["5"]


def test_aggregates_and_improvement_stand_in_tables(opened: Callable[..., Page]) -> None:
    document = rich()
    page = opened(document)
    of = document["aggregates"]
    first = page.js("return document.querySelector('.aggregates tbody tr').innerText").split()
    iqm = of["methods"]["baq"]["iqm"]
    assert shown_number(first[1]) == pytest.approx(iqm["value"], abs=0.051)
    assert shown_number(first[2].strip("[,")) == pytest.approx(iqm["low"], abs=0.051)
    pair = next(p for p in of["improvement"] if (p["x"], p["y"]) == ("iql", "baq"))
    cell = page.js("return document.querySelector('.matrix tbody tr:last-child').cells[1]")
    value, bounds = cell.text.split("\n")
    assert float(value) == pytest.approx(pair["value"], abs=0.0051)
    assert float(bounds.split("–")[0]) == pytest.approx(pair["low"], abs=0.0051)


def test_every_statistic_is_defined_where_its_heading_points(opened: Callable[..., Page]) -> None:
    document = rich()
    page = opened(document)
    links = page.js(
        """return [...document.querySelectorAll("#task-0 .statistics th a")].map((link) =>
        [link.textContent, link.closest("th").title,
         document.querySelector(link.getAttribute("href")).nextElementSibling.textContent])"""
    )
    told = [[of["heading"], of["definition"]] for of in document["statistics"].values()]
    assert [[heading, listed] for heading, _, listed in links] == told
    assert [[heading, title] for heading, title, _ in links] == told


def test_one_run_says_so_and_has_no_aggregates(opened: Callable[..., Page]) -> None:
    page = opened(single())
    assert page.all("#aggregates") == page.all("button.mode") == []
    assert "1 seed: 1 run" in page.all(".lead")[0].text
    assert "Lines: 1 seed." in page.all("figcaption")[0].text
    regret = page.all("#task-0 .statistics tbody td")[5]
    assert regret.text == "–"


def test_notes_warnings_and_failures_stand_above_the_results(opened: Callable[..., Page]) -> None:
    document = rich()
    page = opened(document)
    assert document["notes"][0] in page.all("header .notes")[0].text
    failure = page.all("header .failures")[0].text
    assert "awac (seeds 3, 4) on baq/pendulum/mixed-v0" in failure
    assert document["failures"][0]["error"] in failure
    assert "3 episodes are identical" in page.all("#task-1 .facts")[0].text


def axis_titles(page: Page, figure: int) -> list[str]:
    layout = f"document.querySelectorAll('.plot')[{figure}]._fullLayout"
    return page.js(f"return ['xaxis', 'xaxis2'].map((axis) => {layout}[axis].title.text)")


def test_axes_say_what_they_count(opened: Callable[..., Page]) -> None:
    page = opened(hostile())
    page.draw_all()
    steps = ["offline · gradient steps", "online · environment steps"]
    assert axis_titles(page, 0) == steps
    assert axis_titles(page, 1) == ["offline · evaluations", "online · evaluations"]


def test_curves_that_count_different_things_share_their_budget(
    opened: Callable[..., Page],
) -> None:
    document = rich()
    curve = document["tasks"][0]["methods"]["iql"]["curves"]["online"]
    curve |= {"unit": "evaluations", "counters": list(range(21))}
    page = opened(document)
    page.wait("return baqReport.drawn.includes('curves-0')")
    titles = ["offline · gradient steps", "online · % of each method's budget"]
    assert axis_titles(page, 0) == titles
    ends = page.js(
        """return document.querySelector(".plot").data.filter(({meta, xaxis}) =>
        meta.part === "mean" && xaxis === "x2").map(({x}) => x.at(-1))"""
    )
    assert ends == [100] * 4


def test_a_method_without_runs_on_a_task_is_named_there(opened: Callable[..., Page]) -> None:
    document = rich()
    del document["tasks"][1]["methods"]["awac"]
    page = opened(document)
    assert page.all("#task-1 .absent")[0].text.split("\n")[-1].endswith("no finished run")
    page.draw_all()
    assert page.methods_shown()[1] == {0, 1, 3}


def test_the_embedded_document_is_the_document_to_six_digits() -> None:
    document = rich()
    text = embedded(document)
    read = json.loads(text)

    def same(one: Any, other: Any) -> bool:
        if isinstance(one, dict):
            return all(same(value, other[key]) for key, value in one.items())
        if isinstance(one, list):
            return len(one) == len(other) and all(map(same, one, other))
        if isinstance(one, float):
            return math.isclose(one, other, rel_tol=5e-6)
        return bool(one == other)

    assert same(document, read)
    curve = read["tasks"][0]["methods"]["baq"]["curves"]["online"]
    last = [scores[-1] for scores in curve["scores"]]
    assert curve["mean"][-1] == pytest.approx(sum(last) / 5, rel=1e-5)
    assert max(map(len, re.findall(r"-?\d+\.\d+", text))) <= len("-0.000123456")


def test_nothing_embedded_ends_its_script_and_what_isnt_finite_is_null() -> None:
    document = compared([HOSTILE[4]], ["task"], seeds=1, evaluations=3)
    statistics = document["tasks"][0]["methods"][HOSTILE[4]]["statistics"]
    statistics["final"] = statistic([math.nan, math.inf])
    text = embedded(document)
    assert not re.search("[<>&\u2028\u2029]", text)
    read = json.loads(text)
    assert read["methods"] == [HOSTILE[4]]
    assert read["tasks"][0]["methods"][HOSTILE[4]]["statistics"]["final"]["per_seed"] == [None] * 2


def test_methods_look_as_in_the_other_figures_and_each_unlike_the_others() -> None:
    assert (len(DASHES), len(SYMBOLS)) == (len(FIGURE_DASHES), len(MARKERS))
    looks = {(of["color"], of["dash"], of["symbol"]) for of in method_styles([""] * 28)}
    assert len(looks) == 28
    assert len({look[:2] for look in looks}) == 28  # colour and dash alone suffice


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (None, 1, "–"),
        (math.nan, 1, "–"),
        (-0.04, 1, "0.0"),
        (-1234.5678, 2, "−1,234.57"),
        (12, 0, "12"),
    ],
)
def test_numbers_are_printed_so(value: float | None, places: int, text: str) -> None:
    assert fixed(value, places) == text


@pytest.mark.parametrize(
    ("values", "places"), [([12345.6], 0), ([99.0, -3.2], 1), ([5.5], 2), ([0.0123], 4), ([], 2)]
)
def test_decimals_follow_the_largest(values: list[float], places: int) -> None:
    assert decimals(values) == places
