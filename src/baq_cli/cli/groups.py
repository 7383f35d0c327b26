"""Groups of commands that take their words in ways of their own."""

from __future__ import annotations

from typing import Any, ClassVar

from typer.core import TyperGroup

DEBUG, TRUST = "--debug", "--trust-env"


class WholeSummaries(TyperGroup):
    """A group whose help says what each command does in whole sentences, on as many lines."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [
            (name, " ".join((command.help or "").partition("\n\n")[0].split()))
            for name, command in self.commands.items()
            if not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class FlagsAnywhere(WholeSummaries):
    """A command line whose flags for every command may stand anywhere on it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = [word for word in args if word not in (DEBUG, TRUST)]
        flags = [word for word in args if word in (DEBUG, TRUST)]
        return super().parse_args(ctx, [*flags, *rest] if rest else [])


class ByDefault(WholeSummaries):
    """A group that takes words for its `default` command where they name none of its own."""

    default: ClassVar[str]

    def is_for_default(self, args: list[str]) -> bool:
        return not args or args[0] not in self.commands

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if self.is_for_default(args) and (args or not ctx.resilient_parsing):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Offer the group's commands, and what its default one takes."""
        command = self.commands[self.default]
        with command.make_context(self.default, [], parent=ctx, resilient_parsing=True) as inner:
            own = super().shell_complete(ctx, incomplete)
            return [*own, *command.shell_complete(inner, incomplete)]


class RunByDefault(ByDefault):
    """`baq NAME …` is `baq NAME run …`, unless the first word is a sub-command."""

    default = "run"
