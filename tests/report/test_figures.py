"""A comparison's figures show the document's numbers, every method in its own look."""

from __future__ import annotations

import copy
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from baq_cli.errors import DataError
from baq_cli.report.figures import curves_stems, draw_figures, each_figure
from baq_cli.report.names import plain, wrapped
from baq_cli.report.panels import OTHERS
from baq_cli.report.style import DASHES, MARKERS, NARROW, OKABE_ITO, WIDE, styled
from support import documents

ABLATION = ["baq", *(f"baq k_q={i} online.utd={j}" for i in (1, 3, 10) for j in (1, 2, 4)), "awac"]
MANY = documents.compared(ABLATION, ["baq/hopper/medium-v0"], seeds=3, evaluations=21)
CROWD = documents.compared(
    [f"m{i}" for i in range(14)], ["baq/hopper/medium-v0"], seeds=3, evaluations=11
)
DOCUMENTS = {"rich": documents.rich(), "hostile": documents.hostile(), "many": MANY}
DOCUMENTS["crowd"] = CROWD


def figures(document):
    return dict(each_figure(document))


@pytest.fixture(scope="module")
def drawn():
    """The figures of every example, drawn and laid out once."""
    found = {name: figures(document) for name, document in DOCUMENTS.items()}
    for figure in (figure for of in found.values() for figure in of.values()):
        with styled(figure.get_figwidth()):
            figure.draw_without_rendering()
    return found


def lines_in(axes, i):
    """The lines of the i-th method, told by colour and marker; no two methods share both."""
    look = (OKABE_ITO[i % len(OKABE_ITO)], MARKERS[i % len(MARKERS)])
    return [
        line for line in axes.lines if (to_hex(line.get_color()).upper(), line.get_marker()) == look
    ]


def bands_in(axes, i):
    color = OKABE_ITO[i % len(OKABE_ITO)]
    return [
        band.get_paths()[0].vertices
        for band in axes.collections
        if len(band.get_paths()) and to_hex(band.get_facecolor()[0]).upper() == color
    ]


def edges(vertices, x):
    """The lower and the upper edge of a band at each x."""
    at = [vertices[np.isclose(vertices[:, 0], place), 1] for place in x]
    return np.array([y.min() for y in at]), np.array([y.max() for y in at])


def all_texts(figure):
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


# -- what is drawn is what the document says


def test_curves_are_the_means_of_the_seeds_with_their_spread(drawn):
    document = DOCUMENTS["rich"]
    for task in document["tasks"]:
        (axes,) = drawn["rich"][curves_stems(document)[task["name"]]].axes
        for i, method in enumerate(document["methods"]):
            curves = task["methods"][method]["curves"]
            for phase, line, band in zip(
                ("offline", "online"), lines_in(axes, i), bands_in(axes, i), strict=True
            ):
                scores = np.array(curves[phase]["scores"])
                counters = np.array(curves[phase]["counters"])
                x, y = line.get_data()
                np.testing.assert_allclose(y, scores.mean(axis=0))
                begin, end = (0, 0.4) if phase == "offline" else (0.4, 1)
                np.testing.assert_allclose(x, begin + (end - begin) * counters / counters[-1])
                low, high = edges(band, x)
                np.testing.assert_allclose(low, y - scores.std(axis=0, ddof=1))
                np.testing.assert_allclose(high, y + scores.std(axis=0, ddof=1))


def test_more_methods_than_share_axes_have_a_panel_each_with_the_others_in_grey(drawn):
    methods, (task,) = CROWD["methods"], CROWD["tasks"]
    (stem,) = curves_stems(CROWD).values()
    for name in (stem, "efficiency", "profiles"):
        panels = drawn["crowd"][name].axes
        assert [axes.get_title(loc="left") for axes in panels] == methods
        assert len({axes.get_ylim() for axes in panels}) == 1
    for i, axes in enumerate(drawn["crowd"][stem].axes):
        own = lines_in(axes, i)
        for phase, line in zip(("offline", "online"), own, strict=True):
            scores = np.array(task["methods"][methods[i]]["curves"][phase]["scores"])
            np.testing.assert_allclose(line.get_ydata(), scores.mean(axis=0))
        grey = [line for line in axes.lines if line.get_color() == OTHERS["color"]]
        assert len(grey) == 2 * (len(methods) - 1)
        assert max(line.get_zorder() for line in grey) < min(line.get_zorder() for line in own)


def test_a_seed_without_a_score_is_left_out_of_the_mean():
    document = documents.single()
    curve = document["tasks"][0]["methods"]["iql"]["curves"]["online"]
    curve |= {"counters": [0, 10], "scores": [[1.0, None], [3.0, 4.0]]}
    (figure,) = figures(document).values()
    _, online = lines_in(figure.axes[0], 0)
    np.testing.assert_array_equal(online.get_ydata(), [2.0, 4.0])


def test_aggregates_are_points_on_their_intervals(drawn):
    document = DOCUMENTS["rich"]
    panels = drawn["rich"]["aggregates"].axes
    assert [axes.get_title() for axes in panels] == [
        "IQM ↑",
        "median ↑",
        "mean ↑",
        "optimality gap ↓",
    ]
    for axes, kind in zip(panels, ("iqm", "median", "mean", "optimality_gap"), strict=True):
        bars = [line for line in axes.lines if len(line.get_xdata()) == 2]
        for i, method in enumerate(document["methods"]):
            found = document["aggregates"]["methods"][method][kind]
            (point,) = lines_in(axes, i)
            assert point.get_xdata() == [found["value"]]
            assert list(bars[i].get_xdata()) == [found["low"], found["high"]]
            assert list(bars[i].get_ydata()) == [*point.get_ydata()] * 2
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    heights = [lines_in(panels[0], i)[0].get_ydata()[0] for i in range(4)]
    assert labels == document["methods"]
    assert heights == list(panels[0].get_yticks())
    assert panels[0].yaxis_inverted()  # the first method is on top


@pytest.mark.parametrize(("stem", "x"), [("profile", "thresholds"), ("efficiency", "x")])
def test_profiles_and_efficiency_are_the_documents_bands(drawn, stem, x):
    document = DOCUMENTS["rich"]
    of = document["aggregates"][stem]
    (axes,) = drawn["rich"]["profiles" if stem == "profile" else stem].axes
    for i, method in enumerate(document["methods"]):
        (line,), (band,) = lines_in(axes, i), bands_in(axes, i)
        np.testing.assert_array_equal(line.get_xdata(), of[x])
        np.testing.assert_array_equal(line.get_ydata(), of["methods"][method]["value"])
        low, high = edges(band, of[x])
        np.testing.assert_allclose(low, of["methods"][method]["low"])
        np.testing.assert_allclose(high, of["methods"][method]["high"])


def shown_rows(figure):
    """Each row of the improvement's figure: X, Y, the value and its interval."""
    (axes,) = figure.axes
    (right,) = axes.child_axes
    points = [line for line in axes.lines if line.get_marker() != "None"]
    bars = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_alpha()]
    rows = zip(
        axes.get_yticks(),
        axes.get_yticklabels(),
        right.get_yticklabels(),
        points,
        bars,
        strict=True,
    )
    for y, x_label, y_label, point, bar in rows:
        assert point.get_ydata() == [y]
        yield x_label.get_text(), y_label.get_text(), point.get_xdata()[0], list(bar.get_xdata())


def test_each_pair_is_compared_once_and_a_half_is_marked(drawn):
    document, figure = DOCUMENTS["rich"], drawn["rich"]["improvement"]
    found = {(pair["x"], pair["y"]): pair for pair in document["aggregates"]["improvement"]}
    rows = list(shown_rows(figure))
    assert len(rows) == 4 * 3 / 2
    for x, y, value, interval in rows:
        pair = found[x, y]
        assert (value, interval) == (pair["value"], [pair["low"], pair["high"]])
    assert {frozenset(row[:2]) for row in rows} == {frozenset(pair) for pair in found}
    assert any(list(line.get_xdata()) == [0.5, 0.5] for line in figure.axes[0].lines)


def test_many_methods_are_compared_with_the_first_alone(drawn):
    rows = list(shown_rows(drawn["many"]["improvement"]))
    assert {x for x, *_ in rows} == {"baq"}
    assert [y for _, y, *_ in rows] == [wrapped(name, 24) for name in ABLATION[1:]]


# -- looks


def test_methods_look_the_same_in_every_figure_and_different_from_each_other(drawn):
    """Also on a task that lacks a method: the later ones keep their looks."""
    for name in ("hostile", "many"):
        methods = DOCUMENTS[name]["methods"]
        looks = set()
        for i in range(len(methods)):
            look = (OKABE_ITO[i % 7], MARKERS[i % 9], str(DASHES[i % 4]))
            looks.add(look)
            for stem, figure in drawn[name].items():
                if stem == "improvement":
                    continue
                lacks = stem.startswith("curves-two") and methods[i] == "constructor"
                for axes in figure.axes:
                    lines = lines_in(axes, i)
                    assert len(lines) == (0 if lacks else 2 if stem.startswith("curves") else 1)
        assert len(looks) == len(methods)


def test_the_legend_names_each_line_by_its_look(drawn):
    for name in ("rich", "many"):
        for stem, figure in drawn[name].items():
            for legend in figure.legends:
                named = {
                    text.get_text(): line
                    for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
                }
                assert list(named) == DOCUMENTS[name]["methods"], stem
                for i, line in enumerate(named.values()):
                    assert to_hex(line.get_color()).upper() == OKABE_ITO[i % 7]
                    assert line.get_marker() == MARKERS[i % 9]


def test_figures_fit_a_paper_and_nothing_is_cut_off(drawn):
    for name, of in drawn.items():
        for stem, figure in of.items():
            assert figure.get_figwidth() in (NARROW, WIDE)
            assert figure.dpi >= 150
            assert all(text.get_fontsize() >= 8 for text in all_texts(figure))
            drawn_in = figure.get_tightbbox()  # inches; the figure begins at 0
            assert min(drawn_in.x0, drawn_in.y0) >= -0.01, (name, stem)
            assert drawn_in.x1 <= figure.get_figwidth() + 0.01, (name, stem)
            assert drawn_in.y1 <= figure.get_figheight() + 0.01, (name, stem)


def test_legends_lie_below_everything_else(drawn):
    for of in drawn.values():
        for figure in of.values():
            for legend in figure.legends:
                (axes,) = figure.axes
                assert axes.get_tightbbox().y0 >= legend.get_window_extent().y1 + 3  # dots


def test_a_long_legend_takes_no_height_from_the_axes(drawn):
    """Whatever the names, curves are drawn as high as with a legend of one row."""
    heights = {}
    for name in ("rich", "many", "hostile"):
        figure = next(iter(drawn[name].values()))
        heights[name] = figure.axes[0].get_window_extent().height
    assert min(heights.values()) > 0.93 * heights["rich"]


# -- names


def svg_texts(path: Path) -> list[str]:
    root = ElementTree.parse(path).getroot()
    found = (element for element in root.iter() if element.tag.endswith("}text"))
    return ["".join(element.itertext()) for element in found]


def test_hostile_names_stand_in_the_svg_as_they_are(tmp_path):
    document = documents.hostile()
    paths = draw_figures(document, tmp_path)
    stems = curves_stems(document)
    assert paths[:2] == [
        tmp_path / f"{stems[documents.HOSTILE[0]]}.{end}" for end in ("png", "svg")
    ]
    assert sorted(paths) == sorted(tmp_path.iterdir())
    for path in paths:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
            continue
        texts = svg_texts(path)
        tags = {element.tag.split("}")[-1] for element in ElementTree.parse(path).iter()}
        assert not tags & {"script", "a", "img", "b"}
        if path.stem in ("aggregates", "improvement"):  # names are wrapped
            joined = "".join("".join(texts).split())
            assert all("".join(plain(name).split()) in joined for name in document["methods"][:-1])
        else:
            shown = [
                name
                for name in document["methods"][:-1]
                if not (name == "constructor" and "two" in path.stem)
            ]
            assert all(plain(name) in texts for name in shown)


def test_control_characters_dont_break_the_svg(tmp_path):
    document = documents.single()
    name = "a\x00b\x1b[31m \ud800 \ufffe _c"
    document["methods"] = [name]
    document["tasks"][0]["methods"] = {name: document["tasks"][0]["methods"]["iql"]}
    _, svg = draw_figures(document, tmp_path)
    assert "a\ufffdb\ufffd[31m \ufffd \ufffd _c" in svg_texts(svg)


# -- what is left out, and other units


def test_without_aggregates_there_are_only_curves():
    document = documents.rich() | {"aggregates": None}
    assert list(figures(document)) == list(curves_stems(document).values())


def test_unknown_aggregates_are_left_out():
    document = copy.deepcopy(MANY)
    of = document["aggregates"]
    of["methods"] = {"baq": of["methods"]["baq"]}
    of["methods"]["baq"] |= {
        "optimality_gap": None,
        "iqm": {"value": 3.0, "low": None, "high": None},
    }
    of |= {"efficiency": None, "improvement": []}
    found = figures(document)
    assert list(found)[1:] == ["aggregates", "profiles"]
    panels = found["aggregates"].axes
    assert [axes.get_title() for axes in panels] == ["IQM ↑", "median ↑", "mean ↑"]
    assert [list(line.get_xdata()) for line in panels[0].lines] == [[3.0]]


def test_a_task_without_an_evaluation_has_no_figure():
    document = documents.rich() | {"aggregates": None}
    for results in document["tasks"][0]["methods"].values():
        results["curves"] = {}
    assert list(figures(document)) == [curves_stems(document)["baq/pendulum/mixed-v0"]]


def test_evaluations_are_called_evaluations(drawn):
    document = DOCUMENTS["hostile"]
    figure = drawn["hostile"][curves_stems(document)[document["tasks"][1]["name"]]]
    texts = {text.get_text() for text in all_texts(figure)}
    assert {"offline: evaluations", "online: evaluations"} <= texts
    assert "normalized score, mean ± std over 2 seeds" in texts


def test_curves_that_count_different_things_share_no_counter():
    """Each is drawn over its own budget, and the axis says so."""
    document = documents.rich() | {"aggregates": None}
    task = document["tasks"][0]
    curve = task["methods"]["iql"]["curves"]["online"]
    curve |= {"unit": "evaluations", "counters": list(range(21))}
    axes = next(iter(figures(document).values())).axes[0]
    texts = {text.get_text() for text in axes.texts}
    assert {"offline: gradient steps", "online: % of own budget"} <= texts
    _, of_run = lines_in(axes, 0)
    _, of_file = lines_in(axes, 3)
    np.testing.assert_allclose(of_run.get_xdata(), of_file.get_xdata())
    assert of_run.get_xdata()[-1] == 1


def test_the_datasets_mean_is_in_the_scores_unit(drawn):
    for task in DOCUMENTS["rich"]["tasks"]:
        (axes,) = drawn["rich"][curves_stems(DOCUMENTS["rich"])[task["name"]]].axes
        across = [line for line in axes.lines if list(line.get_xdata()) == [0, 1]]
        (line,) = [line for line in across if line.get_linestyle() == "--"]
        assert list(line.get_ydata()) == [task["dataset"]["return_mean"]] * 2


# -- files


def test_the_same_document_gives_the_same_bytes(tmp_path):
    document = documents.rich()
    document["tasks"] = document["tasks"][:1]
    for one, other in zip(*(draw_figures(document, tmp_path / name) for name in "ab"), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_folder_that_cant_be_made_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the figure .*curves-baq-pendulum"):
        draw_figures(documents.single(), tmp_path / "file")


def test_importing_the_renderings_imports_neither_torch_nor_matplotlib():
    code = (
        "import sys, baq_cli.report.figures, baq_cli.report.markdown, baq_cli.report.results_csv; "
        "print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
