"""The page of a comparison on a wide screen, a small one, a phone and paper, in light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from baq_cli.report.page import write_page
from baq_cli.report.page_recipes import by_value, recipe_groups
from support.browser import Page, start
from support.documents import crowded, rich, single

DOCUMENTS = {"crowded": crowded, "rich": rich, "single": single}
SCREENS = (1280, 800, 390)
PAPER = 718
"""CSS pixels between the margins of a sheet of A4, as browsers print it."""
HEIGHT = 900
CUT = """
return [...document.querySelectorAll(".scroll")]
  .filter((of) => of.scrollWidth > of.clientWidth + 1)
  .map((of) => `${of.ariaLabel}: ${of.scrollWidth} in ${of.clientWidth}`);
"""


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    driver = start()
    yield driver
    driver.quit()


@pytest.fixture(scope="module", params=DOCUMENTS)
def page(request: Any, driver: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A document's page with all that is folded open, its figures not drawn."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    page = Page(driver, write_page(DOCUMENTS[request.param](), path))
    page.js("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    return page


@pytest.fixture(scope="module")
def crowd(driver: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("page") / "report.html"
    return Page(driver, write_page(crowded(), path))


@pytest.fixture(autouse=True)
def _as_before(driver: Any) -> Iterator[None]:
    yield
    seen_as(driver, "", "light")
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def seen_as(driver: Any, media: str, scheme: str) -> None:
    wish = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media} | wish)


@pytest.mark.parametrize("width", SCREENS)
def test_no_table_is_cut_on_any_screen(width: int, page: Page) -> None:
    page.resize(width)
    assert page.js(CUT) == []
    whole = "document.documentElement"  # a figure follows its window a moment later
    page.wait(f"return {whole}.scrollWidth === {whole}.clientWidth")


def test_no_table_is_cut_on_paper(page: Page) -> None:
    seen_as(page.driver, "print", "light")
    page.resize(PAPER)
    bar = page.js("return innerWidth - document.documentElement.clientWidth")
    page.resize(PAPER + bar)
    wide = "[...document.querySelectorAll('table')].map((of) => of.getBoundingClientRect().right)"
    assert page.js(f"return Math.max(0, ...{wide})") <= PAPER + 1


@pytest.mark.parametrize("width", SCREENS)
def test_the_legend_names_every_method_and_leaves_room_for_the_figures(
    width: int, crowd: Page
) -> None:
    crowd.resize(width)
    bar = "document.querySelector('.bar').getBoundingClientRect().height"
    assert crowd.js(f"return {bar}") <= 0.3 * HEIGHT
    names = crowd.js("return [...document.querySelectorAll('.method')].map((of) => of.innerText)")
    assert names == crowded()["methods"]
    cut = "(of) => of.scrollWidth > of.offsetWidth"
    assert not crowd.js(f"return [...document.querySelectorAll('.method span')].some({cut})")


def test_a_phone_shows_each_number_with_its_name(crowd: Page) -> None:
    crowd.resize(390)
    row = "#task-0 .statistics tbody tr"
    labels = crowd.js(
        f"""return [...document.querySelectorAll("{row}:first-child td")].map((of) =>
        getComputedStyle(of, "::before").content.slice(1, -1))"""
    )
    headings = [of["heading"] for of in crowded()["statistics"].values()]
    assert [label.split(" ↑")[0].split(" ↓")[0] for label in labels] == [*headings, "seeds"]
    assert crowd.js("return getComputedStyle(document.querySelector('thead')).display") == "none"


def test_paper_is_white_has_a_legend_and_a_page_for_each_section(crowd: Page) -> None:
    seen_as(crowd.driver, "", "dark")
    theme = "return document.documentElement.dataset.theme"
    crowd.wait(f"return (() => {{ {theme} }})() === 'dark'")
    crowd.js("dispatchEvent(new Event('beforeprint'))")
    assert crowd.js(theme) == "light"
    crowd.wait("return [...document.querySelectorAll('.figure')].every((of) => of.dataset.drawn)")
    widths = "return [...document.querySelectorAll('.plot')].map((of) => of._fullLayout.width)"
    assert max(crowd.js(widths)) < PAPER
    papers = "return document.querySelector('.plot')._fullLayout.paper_bgcolor"
    assert crowd.js(papers) == "#ffffff"
    seen_as(crowd.driver, "print", "dark")
    bar = "getComputedStyle(document.querySelector('.bar'))"
    assert crowd.js(f"return [{bar}.display, {bar}.position]") == ["block", "static"]
    breaks = crowd.js(
        "return [...document.querySelectorAll('main > section')].map((of) => "
        "getComputedStyle(of).breakBefore)"
    )
    assert breaks == ["auto", *["page"] * (len(breaks) - 1)]
    assert len(breaks) > 3
    seen_as(crowd.driver, "", "dark")
    crowd.js("dispatchEvent(new Event('afterprint'))")
    assert crowd.js(theme) == "dark"
    crowd.settle()
    assert crowd.js(papers) != "#ffffff"
    assert crowd.said() == []


def test_probabilities_of_many_methods_are_whole_percents(crowd: Page) -> None:
    cells = crowd.js(
        "return [...document.querySelectorAll('.matrix td.above, .matrix td.below')].map((of) => "
        "of.textContent)"
    )
    pairs = crowded()["aggregates"]["improvement"]
    methods = crowded()["methods"]
    order = {(x, y): (methods.index(x), methods.index(y)) for x in methods for y in methods}
    expected = [
        f"{100 * pair['value']:.0f}" for pair in sorted(pairs, key=lambda p: order[p["x"], p["y"]])
    ]
    assert cells == expected


def test_recipes_of_many_methods_are_listed_by_value() -> None:
    rows = {"tau": {"a": "1", "b": "2", "c": "2"}, "utd": {"c": "4"}}
    assert by_value(rows) == [("tau", [("2", ["b", "c"]), ("1", ["a"])]), ("utd", [("4", ["c"])])]


@pytest.mark.parametrize(("methods", "listed"), [(6, False), (7, True)])
def test_few_methods_have_a_column_each(methods: int, listed: bool) -> None:
    names = [f"m{i}" for i in range(methods)]
    row = {"task": "t", "key": "tau", "values": dict.fromkeys(names, "1")}
    (group,) = recipe_groups({"methods": names, "recipes": [row]})
    assert (group["by_value"] is not None) == listed
    assert group["methods"] == names
