"""The `baq` command: its sub-commands, and how failures become exit statuses."""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass
from typing import Annotated

import typer

from baq_cli import __version__
from baq_cli.cli import (
    advise,
    bench,
    compare,
    completion,
    data,
    demo,
    evaluate,
    export,
    finetune,
    methods,
    ope,
    pretrain,
    recipes,
    report,
    tune,
)
from baq_cli.cli.groups import DEBUG, TRUST, FlagsAnywhere
from baq_cli.cli.say import say
from baq_cli.errors import ExitStatus
from baq_cli.machine import wait_without_holding_cores
from baq_cli.outlets import guard, lost
from baq_cli.safe_python import never_from_here
from baq_cli.signals import Stopped, raised
from baq_cli.surroundings import KEPT, check_here, known


@dataclass
class Reporting:
    """How a failure is reported."""

    debug: bool = False


app = typer.Typer(
    name="baq",
    cls=FlagsAnywhere,
    help="Offline-to-online reinforcement learning: pre-train on logged data, fine-tune in the "
    "environment, evaluate, compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("pretrain")(pretrain.pretrain)
app.command("finetune")(finetune.finetune)
app.command("eval")(evaluate.evaluate)
app.command("ope")(ope.ope)
app.command("advise")(advise.advise)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("bench")(bench.bench)
app.command("demo")(demo.demo)
app.add_typer(compare.app, name="compare")
app.add_typer(tune.app, name="tune")
app.add_typer(data.app, name="data")
app.add_typer(methods.app, name="methods")
app.add_typer(recipes.app, name="recipes")


def _version(asked: bool) -> None:
    if asked:
        say(f"baq {__version__}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Show a traceback when something fails (anywhere).")
    ] = False,
    trust_env: Annotated[
        bool,
        typer.Option(TRUST, help="Let ids MODULE:ID import their module (anywhere)."),
    ] = False,
) -> None:
    """Offline-to-online reinforcement learning."""
    ctx.ensure_object(Reporting).debug = debug
    check_here()
    import logging

    # It would tell of each folder that it can't keep its fonts in, and goes on without.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    if trust_env:
        from baq_cli.untrusted import TRUST_VARIABLE

        os.environ[TRUST_VARIABLE] = "1"


def main() -> None:
    """Run the command line; every known failure is one message and its status."""
    if completion.is_asked():
        completion.answer(lambda: app(prog_name="baq"))
    how = Reporting()
    try:
        never_from_here()
        wait_without_holding_cores()
        guard()
        with raised():
            app(sys.argv[1:], prog_name="baq", obj=how)
    except SystemExit as ended:
        if ended.code == ExitStatus.INTERRUPTED:  # Typer's, without a word
            _report(_stopped_at_once(ended), ExitStatus.INTERRUPTED, how)
        unheard = lost()
        if unheard is not None and not ended.code:
            _report(str(unheard), unheard.status, how)
        raise
    except BaseException as error:
        failure = known(error)
        if failure is not None:
            _report(str(failure), failure.status, how)
        _report(
            f"unexpected {type(error).__name__}: {error}\n"
            "This is a fault of baq. Run the command again with --debug and report the traceback.",
            ExitStatus.FAULT,
            how,
        )


def _stopped_at_once(ended: SystemExit) -> str:
    """Return what is said of a command that a signal ended where nothing waited to be saved."""
    cause = ended.__context__ and ended.__context__.__cause__
    by = f" by {cause}" if isinstance(cause, Stopped) else ""
    return f"stopped at once{by}; {KEPT}"


def _report(message: str, status: ExitStatus, how: Reporting) -> None:
    if how.debug:
        say(traceback.format_exc(), err=True)
    if status == ExitStatus.PIPE:  # as others end that are cut off by `| head`
        raise SystemExit(int(status))
    kind = "" if status == ExitStatus.INTERRUPTED else "error: "
    try:
        from rich.text import Text

        from baq_cli.cli.screen import Screen

        Screen(stderr=True, soft_wrap=True).print(Text(kind, style="bold red") + Text(message))
    except OSError:  # where nothing can be opened, not even Rich
        say(kind + message, err=True)
    raise SystemExit(int(status))


if __name__ == "__main__":
    main()
