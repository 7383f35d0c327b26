"""`baq data`: datasets here, their cards and checks, and policies to collect more with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from baq_cli.cli import completion, exchange, suite
from baq_cli.cli import options as opt
from baq_cli.cli.added import warn
from baq_cli.cli.from_run import from_run
from baq_cli.cli.groups import WholeSummaries
from baq_cli.cli.ogbench import import_ogbench
from baq_cli.cli.say import say

app = typer.Typer(
    help="List, inspect, check, import, export, build and collect datasets.",
    cls=WholeSummaries,
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("import")(exchange.import_dataset)
app.command("export")(exchange.export_dataset)
app.command("ogbench")(import_ogbench)
app.command("download")(exchange.download_dataset)
app.command("from-run")(from_run)
app.add_typer(suite.app, name="suite")

DatasetId = Annotated[
    str,
    typer.Argument(
        help="A dataset id, as 'baq data list' shows them.", autocompletion=completion.dataset
    ),
]


@app.command("list")
def list_datasets(json: opt.Json = False) -> None:
    """List the datasets in the Minari folder; 'baq data suite list' shows what can be built."""
    from baq_cli.cli.results import print_json, print_table
    from baq_cli.data.minari.folder import (
        dataset_path,
        local_datasets,
        older_datasets,
        open_minari,
    )
    from baq_cli.data.minari.older import way_over
    from baq_cli.errors import DataError

    metadata: dict[str, Any]
    rows = []
    for dataset_id in local_datasets():
        try:
            metadata = open_minari(dataset_id).metadata
        except DataError as error:  # it stands in no other's way
            metadata = {"description": str(error)}
        about = str(metadata.get("description", "")).partition("\n")[0]
        rows.append(
            {
                "dataset": dataset_id,
                "episodes": metadata.get("total_episodes"),
                "env_steps": metadata.get("total_steps"),
                "about": about if json or len(about) < 70 else f"{about[:69]}…",
            }
        )
    for dataset_id, said in older_datasets().items():
        way = way_over(dataset_id, dataset_path(dataset_id) / "data")
        rows.append(
            {
                "dataset": dataset_id,
                "episodes": said.get("total_episodes"),
                "env_steps": said.get("total_steps"),
                "about": f"written by Minari {said['minari_version']}, not read as it is: '{way}'",
            }
        )
    if json:
        print_json(rows)
    elif rows:
        print_table(rows)
    else:
        what = "'baq data suite list' shows what can be built"
        say(f"no datasets in {dataset_path()} yet: {what}", err=True)


@app.command()
def show(
    dataset: DatasetId,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw returns, lengths and actions to this PNG file.", dir_okay=False),
    ] = None,
    json: opt.Json = False,
) -> None:
    """Show a dataset's card: environment, episodes, returns, ends, ranges, coverage."""
    from baq_cli.cli.progress import watch
    from baq_cli.cli.results import print_card, print_json
    from baq_cli.data.card import card
    from baq_cli.data.minari.folder import open_minari
    from baq_cli.engine.collection.datasets import open_dataset

    with watch(dataset) as observer:
        episodes = open_dataset(dataset, observer)
    facts = card(episodes, open_minari(dataset).metadata)
    if plot is not None:
        from baq_cli.report.dataset import draw_dataset

        facts["plot"] = str(draw_dataset(episodes, plot))
    if json:
        print_json(facts)
    else:
        print_card(facts | {"environment": facts["environment"] or "none is named"})


@app.command()
def check(
    dataset: DatasetId,
    env: Annotated[
        str | None, typer.Option(help="Check against this environment; default: its own.")
    ] = None,
    env_arg: opt.EnvArg = None,
    max_episode_steps: opt.MaxEpisodeSteps = None,
    json: opt.Json = False,
) -> None:
    """Check a dataset, its content and against its environment; errors give status 3."""
    from baq_cli.cli.results import print_findings
    from baq_cli.engine.collection.datasets import check_dataset, names_no_environment
    from baq_cli.errors import DataError

    found = check_dataset(dataset, opt.environment(env, env_arg, max_episode_steps))
    print_findings(dataset, found, json)
    if env is None and names_no_environment(dataset):
        say(f"{dataset} names no environment: its content alone was checked", err=True)
    errors = sum(finding.level == "error" for finding in found)
    if errors:
        raise DataError(f"dataset '{dataset}' can't be trained on: errors found: {errors}")


@app.command("score-reference")
def score_reference(
    env: Annotated[str, typer.Argument(metavar="ENV", help="Gymnasium id.")],
    env_arg: opt.EnvArg = None,
    max_episode_steps: opt.MaxEpisodeSteps = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="The expert: a run, checkpoint or behaviour file.",
            autocompletion=completion.checkpoint,
        ),
    ] = None,
    episodes: Annotated[
        int, typer.Option(help="Episodes of each.", min=2, max=opt.MOST_EPISODES)
    ] = 100,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Store the references with this dataset.", autocompletion=completion.dataset
        ),
    ] = None,
    json: opt.Json = False,
) -> None:
    """Measure the returns of random actions and of an expert, the ends of a normalised score."""
    from baq_cli.cli.progress import told
    from baq_cli.cli.results import print_json, print_table
    from baq_cli.engine.collection.scoring import (
        check_target,
        measure_expert,
        measure_random,
        store_reference,
    )
    from baq_cli.engine.evaluation.environment import limited

    asked = opt.environment(env, env_arg, max_episode_steps).over(None)
    assert asked is not None
    if dataset is not None:
        check_target(dataset, asked, checkpoint is not None)
    chosen = limited(asked, told)
    measured = {"random": measure_random(chosen, episodes)}
    if checkpoint is not None:
        measured["expert"] = measure_expert(chosen, checkpoint, episodes)
    if dataset is not None:
        store_reference(dataset, chosen, measured)
    if json:
        print_json({"environment": str(chosen), "stored_with": dataset, **measured})
        return
    print_table([{"policy": n, **facts} for n, facts in measured.items()])
    if dataset is not None:
        say(f"stored with {dataset}")


@app.command()
def collect(
    dataset: Annotated[str, typer.Argument(help="The id of the new dataset, as me/task/name-v0.")],
    behavior: Annotated[
        list[str],
        typer.Option(
            help="A one-seed checkpoint or behaviour file, or 'random'; repeat it for a mix.",
            autocompletion=completion.checkpoint,
        ),
    ],
    env_steps: Annotated[
        int,
        typer.Option(help="Environment steps, over all behaviours.", min=1, max=opt.MOST_STEPS),
    ],
    env: Annotated[
        str | None, typer.Option(help="Gymnasium id; default: the behaviour's environment.")
    ] = None,
    env_arg: opt.EnvArg = None,
    max_episode_steps: opt.MaxEpisodeSteps = None,
    seed: Annotated[int, typer.Option(help="Decides start states and action noise.", min=0)] = 0,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Take the policy's mode: no exploration.")
    ] = False,
) -> None:
    """Roll behaviours out into a new Minari dataset: checked, saved whole or not at all."""
    from baq_cli.cli.progress import watch
    from baq_cli.data.suite import Uniform
    from baq_cli.engine.collection.datasets import collect_dataset

    behaviors = [Uniform() if name == "random" else Path(name) for name in behavior]
    choice = opt.environment(env, env_arg, max_episode_steps)
    with watch(f"collecting {dataset}") as observer:
        episodes = collect_dataset(
            dataset, behaviors, choice, env_steps, seed, deterministic, observer
        )
    warn(episodes)
    say(dataset)


@app.command()
def behavior(
    out: Annotated[Path, typer.Argument(help="The behaviour file to write (.safetensors).")],
    checkpoint: Annotated[
        Path,
        typer.Option(help="A one-seed run or checkpoint.", autocompletion=completion.checkpoint),
    ],
    episodes: Annotated[
        int, typer.Option(help="Episodes to measure its return.", min=1, max=opt.MOST_EPISODES)
    ] = 50,
) -> None:
    """Keep a checkpoint's policy as a small behaviour file, with its measured return."""
    from baq_cli.engine.collection.behaviors import describe, export_behavior

    say(describe(out, export_behavior(checkpoint, out, episodes)))
