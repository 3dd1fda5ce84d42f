"""Commands whose modules are imported when they are wanted: a process of the exchange starts without them."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.main import get_group


class LazyGroup(TyperGroup):
    """A group of which some commands are elsewhere.

    `elsewhere` maps their names to "module:attribute", a Typer app or the function of a command. They are
    imported when one of them runs; all of them when a help page lists them or a name is unknown.
    """

    elsewhere: ClassVar[Mapping[str, str]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, and have all of them at hand."""
        for name in self.elsewhere:
            self._load(name)
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, None when there is none of that name."""
        if cmd_name in self.elsewhere:
            self._load(cmd_name)
        elif cmd_name not in self.commands:
            self.list_commands(ctx)  # what is suggested instead may be any of them
        return super().get_command(ctx, cmd_name)

    def _load(self, name: str) -> None:
        if name in self.commands:
            return
        module, _, attribute = self.elsewhere[name].partition(":")
        found = getattr(import_module(module), attribute)
        # An app of its own turns it into a command; with a callback that is a group, whatever is in it.
        holder = typer.Typer(add_completion=False)
        holder.callback()(_do_nothing)
        if isinstance(found, typer.Typer):
            holder.add_typer(found, name=name)
        else:
            holder.command(name)(found)
        self.commands[name] = get_group(holder).commands[name]


def _do_nothing() -> None:
    """Stand for what a group does before its commands."""
