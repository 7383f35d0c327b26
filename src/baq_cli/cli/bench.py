"""`baq bench`: how fast this machine trains, and against what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.cli.say import say
from baq_cli.errors import UsageError, clipped, listed, nearest
from baq_cli.machine import MOST_THREADS

if TYPE_CHECKING:
    from baq_cli.bench.updates import Case, Sizes
    from baq_cli.envs.ref import EnvRef

MOST_SECONDS = 86_400
"""Of a window. Longer ones are taken for mistakes, `inf` among them: nothing would end them."""


def bench(
    algo: Annotated[
        str,
        typer.Option(
            help="Methods, separated by commas, or all.", autocompletion=completion.methods
        ),
    ] = "iql",
    seeds: Annotated[str, typer.Option(help="Seed counts, separated by commas (1,4,10).")] = "1,4",
    device: opt.Device = None,
    phase: Annotated[str, typer.Option(help="offline or online updates.")] = "offline",
    env: Annotated[
        str | None,
        typer.Option(
            help="Also split the time of a fine-tuning here, and say what evaluations take."
        ),
    ] = None,
    env_arg: opt.EnvArg = None,
    max_episode_steps: opt.MaxEpisodeSteps = None,
    env_steps: Annotated[int, typer.Option(help="Its environment steps a seed.", min=1)] = 1000,
    against: Annotated[
        str | None, typer.Option(help="d3rlpy: time its own updates in turn with ours.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Transitions a seed and update.", min=1)] = 256,
    hidden: Annotated[str, typer.Option(help="Hidden widths, separated by commas.")] = "256,256",
    obs_dim: Annotated[int, typer.Option(help="Numbers of an observation.", min=1)] = 17,
    action_dim: Annotated[int, typer.Option(help="Numbers of an action.", min=1)] = 6,
    rows: Annotated[int, typer.Option(help="Transitions in each store.", min=1)] = 100_000,
    threads: Annotated[
        int,
        typer.Option(help="CPU threads; 0: the faster of one and all.", min=0, max=MOST_THREADS),
    ] = 0,
    rounds: Annotated[int, typer.Option(help="Windows a case, in turn.", min=1)] = 5,
    seconds: Annotated[
        float, typer.Option(help="Length of a window.", min=0.01, max=MOST_SECONDS)
    ] = 1.0,
    no_capture: opt.NoCapture = False,
    tf32: Annotated[bool, typer.Option("--tf32", help="CUDA: matrix products in TF32.")] = False,
    save: Annotated[
        Path | None, typer.Option(help="Keep the results in this folder, by the hardware's name.")
    ] = None,
    json: opt.Json = False,
    overrides: opt.Overrides = None,
) -> None:
    """Measure updates per second, the share of this machine's limit, and where time goes.

    Data are random; what counts is their size. Windows of all cases take turns, and the machine's
    limit (a float32 matrix product of the network's size) is measured beside each window.
    """
    from baq_cli.bench.results import begin
    from baq_cli.bench.updates import Sizes
    from baq_cli.engine.updates.device import prepare
    from baq_cli.recipes.schema import MOST_SEEDS

    chosen = prepare(device or "auto", None, tf32)
    sizes = Sizes(batch, _integers("--hidden", hidden), obs_dim, action_dim, rows)
    paths = ["eager"] if no_capture else ["eager", "captured"]
    if against is not None and (phase != "offline" or env):
        raise UsageError("--against measures offline updates: leave out --phase and --env")
    if env is not None:
        _refuse_without("online", algo)
    counts = _integers("--seeds", seeds)
    if max(counts) > MOST_SEEDS:
        raise UsageError(f"--seeds {clipped(seeds)}: expected {MOST_SEEDS:,} seeds at most")
    cases = _cases(algo, counts, phase, paths, threads, overrides or [])
    if save is not None:
        begin(save)
    if against is not None:
        _against(against, _as_trained(cases), sizes, chosen, rounds, seconds, save, json)
        return
    choice = opt.environment(env, env_arg, max_episode_steps)
    _own(cases, sizes, chosen, rounds, seconds, choice.over(None), env_steps, save, json)


def _own(
    cases: list[Case],
    sizes: Sizes,
    device: Any,
    rounds: int,
    seconds: float,
    env: EnvRef | None,
    env_steps: int,
    save: Path | None,
    json: bool,
) -> None:
    from baq_cli.bench import results
    from baq_cli.bench.loop import split_of
    from baq_cli.bench.pauses import pauses_of
    from baq_cli.bench.updates import large_ceiling, measure_cases
    from baq_cli.cli.results import print_json, print_table

    found = measure_cases(cases, sizes, device, rounds, seconds)
    splits, pauses = [], []
    if env is not None:
        trained = [f for f in found if f.case.path == cases[-1].path]
        pauses = [pauses_of(f, sizes, env, device) for f in trained]
        splits = [split_of(c, sizes, env, env_steps, device) for c in _as_trained(cases)]
    facts = {
        "large_product_gflops": large_ceiling(device, seconds),
        "updates": [f.as_dict() for f in found],
        "splits": [split.as_dict() for split in splits],
        "pauses": [each.as_dict() for each in pauses],
    }
    whole = results.document(device, sizes, facts)
    if json:
        print_json(whole)
    else:
        print_table(results.speed_rows(found))
        if splits:
            print_table(results.split_rows(splits))
            print_table(results.pause_rows(pauses))
        say(results.footnote(whole, found))
    _save(save, None, whole)


def _against(
    rival: str,
    cases: list[Case],
    sizes: Sizes,
    device: Any,
    rounds: int,
    seconds: float,
    save: Path | None,
    json: bool,
) -> None:
    from baq_cli.bench import results
    from baq_cli.bench.rival import compare_with_d3rlpy
    from baq_cli.cli.results import print_json, print_table

    if rival != "d3rlpy":
        raise UsageError(f"--against {rival}: only d3rlpy is known")
    pairs = compare_with_d3rlpy(
        cases, sizes, device, rounds, seconds, lambda text: say(text, err=True)
    )
    facts = {"against_d3rlpy": [p.as_dict() for p in pairs]}
    whole = results.document(device, sizes, facts)
    if json:
        print_json(whole)
    else:
        print_table(results.pair_rows(pairs))
    _save(save, "against-d3rlpy", whole)


def _save(folder: Path | None, suffix: str | None, whole: dict[str, Any]) -> None:
    from baq_cli.bench.results import save

    if folder is not None:
        say(f"saved in {save(folder, suffix, whole)}", err=True)


def _integers(option: str, text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise UsageError(f"{option} {text}: expected numbers above zero, separated by commas")
    return found


def _settings(overrides: list[str], algos: list[str]) -> dict[str, dict[str, Any]]:
    """Return what overrides set in each method's section, `shared` in those that have the key.

    Raises UsageError for a word that changes nothing that is measured.
    """
    from baq_cli.agents.registry import METHODS
    from baq_cli.recipes.load import SHARED, parse_overrides

    layer = parse_overrides(overrides)
    for name, section in layer.items():
        if name not in (SHARED, *algos) or not isinstance(section, dict):
            can = listed([f"{algo}.KEY=VALUE" for algo in (*algos, SHARED)])
            raise UsageError(f"'{clipped(name)}' sets nothing that is measured; expected {can}")
    shared = layer.get(SHARED, {})
    return {
        algo: {
            key: value for key, value in shared.items() if key not in METHODS[algo].Config.unused
        }
        | layer.get(algo, {})
        for algo in algos
    }


def _refuse_without(phase: str, algos: str) -> None:
    """Raise UsageError when a method doesn't have the phase."""
    from baq_cli.agents.registry import METHODS

    for name in (part.strip() for part in algos.split(",")):
        if name in METHODS and not getattr(METHODS[name], f"learns_{phase}"):
            raise UsageError(f"'{name}' has no {phase} phase: choose another, or leave it out")


def _as_trained(cases: list[Case]) -> list[Case]:
    """Return the cases in the way of updating that a training takes, of those asked for."""
    return [case for case in cases if case.path == cases[-1].path]


def _cases(
    algos: str,
    seeds: tuple[int, ...],
    phase: str,
    paths: list[str],
    threads: int,
    overrides: list[str],
) -> list[Case]:
    from baq_cli.agents.registry import METHODS
    from baq_cli.bench.updates import Case
    from baq_cli.recipes.method_files import named

    if phase not in ("offline", "online"):
        raise UsageError(f"--phase {phase}: expected offline or online")
    names = named(opt.words(algos), phase)  # type: ignore[arg-type]  # it is one of the two
    unknown = sorted(set(names) - set(METHODS))
    if unknown:
        near = nearest(unknown[0], list(METHODS))
        raise UsageError(f"--algo: unknown method '{clipped(unknown[0])}'; {near}")
    if not names:
        raise UsageError(f"--algo {algos}: expected methods, separated by commas, or all")
    _refuse_without(phase, algos)
    settings = _settings(overrides, names)
    return [
        Case(name, count, phase, path, threads, tuple(settings[name].items()))  # type: ignore[arg-type]
        for name in names
        for count in seeds
        for path in paths
    ]
