"""The help of a command: its arguments are explained too, which click leaves to the text."""

from __future__ import annotations

import click

__all__ = ["HelpfulArgument", "HelpfulCommand"]


class HelpfulArgument(click.Argument):
    """An argument with a help of its own."""

    def __init__(self, name: str, *, help: str, metavar: str, **settings: object) -> None:
        super().__init__([name], **settings)  # type: ignore[arg-type] # click checks them
        self.explained = help
        self.shown = metavar
        usual = metavar if self.required else f"[{metavar}]"
        self.metavar = f"{usual}..." if self.nargs < 0 else usual


class HelpfulCommand(click.Command):
    """A command whose help lists its arguments before its options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both lists."""
        rows = [
            (one.shown, one.explained) for one in self.params if isinstance(one, HelpfulArgument)
        ]
        if rows:
            with formatter.section("Arguments"):
                formatter.write_dl(rows)
        super().format_options(ctx, formatter)
