"""What `baq ope` prints and writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baq_cli.cli.results import print_table
from baq_cli.cli.say import say
from baq_cli.runs.folder import ESTIMATE
from baq_cli.units import amount, scores


def prepare_folder(out: Path) -> None:
    """Make the folder of an estimate, before time is spent on one.

    Raises DataError where that can't be.
    """
    from baq_cli.plain_files import make_folder
    from baq_cli.runs.files import disk_errors

    with disk_errors(f"make the folder {out}"):
        make_folder(out)


def save_estimate(found: Mapping[str, Any], out: Path) -> Path:
    """Write an assessment and its figure into a folder; return the picture's path."""
    from baq_cli.report.estimate_figure import draw_estimate
    from baq_cli.runs.files import disk_errors, json_bytes, replace_file

    with disk_errors(f"write the estimate {out / ESTIMATE}"):
        replace_file(out / ESTIMATE, json_bytes(dict(found)))
    title = f"estimate · {found['algo']} · {found['dataset']}"
    return draw_estimate(found, out, title)[0]


def show_estimate(found: Mapping[str, Any], picture: Path | None) -> None:
    """Print an assessment: a row a seed, then what each number is."""
    estimate, near = found["estimate"], found["closeness"]
    likely = near["log_likelihood"]
    print_table(
        [
            {
                "seed": seed,
                "estimate": of["value"],
                "low": of["low"],
                "high": of["high"],
                "distance": f"{distance:.3f}",
                "log-likelihood": None if likely is None else f"{likely[i]:.2f}",
            }
            for i, (seed, of, distance) in enumerate(
                zip(found["seeds"], estimate["seeds"], near["distance"], strict=True)
            )
        ]
    )
    acts = "its mode" if near["actions"] == "mode" else "its samples, as it plays"
    say(
        f"estimate, not measured: {found['algo']} by {found['dataset']}: {_in(estimate['value'])} "
        f"discounted return (γ = {estimate['discount']:g}) from the starts of "
        f"{amount(estimate['episodes'], 'episode')}, by {acts}, after "
        f"{amount(estimate['gradient_steps'], 'step')} of fitted Q evaluation"
    )
    say(
        f"the data's own episodes: {_in(estimate['behavior'])} discounted, "
        f"{_in(estimate['behavior_raw'])} as they were; the estimate minus theirs: "
        f"{_in(estimate['gain'])}"
    )
    say("intervals (95 %) are over start states alone: how far the fit is off isn't in them")
    _show_calibration(found)
    say(
        f"distance: {_mean(near['distance']):.3f} of an action's range from what was logged; the "
        f"logged actions lie {near['spread']:.3f} from their own mean"
    )
    if picture is not None:
        say(f"figure: {picture} (and .svg), {ESTIMATE} beside it")


def _show_calibration(found: Mapping[str, Any]) -> None:
    own = found["calibration"]["critics"]
    if own is None:
        return
    seen = ", which training saw too," if found["trained_on_it"] else ""
    known = [value for value in own["correlation"] if value is not None]
    fits = f", correlation {_mean(known):.2f}" if known else ""
    predicted, realised = scores(own["predicted"], own["realised"], grouped=True)
    say(
        f"the method's critics on {amount(own['transitions'], 'logged action')} of "
        f"{amount(own['episodes'], 'held-out episode')}{seen} in the units of its updates: "
        f"predicted {predicted} of the policy, realised {realised} by the behaviour{fits}"
    )


def _in(interval: Mapping[str, Any]) -> str:
    """Return a number with its interval in words."""
    value, low, high = scores(interval["value"], interval["low"], interval["high"], grouped=True)
    return f"{value} [{low}, {high}]" if low else value


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
