"""Two kinds of command: those that take their defaults from the library, and groups that answer with their help."""

from __future__ import annotations

import inspect
from importlib import import_module
from operator import attrgetter
from typing import Any

from typer.core import TyperCommand, TyperGroup

from scumble.errors import UsageError, unknown


class HelpfulGroup(TyperGroup):
    """A group of verbs. Given none it shows its help, which is no error; given one that doesn't exist it names the nearest."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise UsageError(unknown("verb", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


def defaults_from(*places: str) -> type[TyperCommand]:
    """A kind of command that takes its options' defaults, by name, from the library's signatures: there they live, once.

    A place is ``module:function``, or ``module:instance`` for the fields of a dataclass; the last one that knows a name counts. It is
    imported when the command is parsed or shows its help, so the list of verbs comes without the library. Where it can't be
    imported (PyTorch is not installed), the verb itself says what is missing.
    """

    class Command(TyperCommand):
        def get_params(self, ctx: Any) -> list[Any]:
            params: list[Any] = super().get_params(ctx)
            known = {name: value for place in places for name, value in _defaults_at(place).items()}
            for param in params:
                if param.name in known:
                    param.default = known[param.name]
            return params

    return Command


def _defaults_at(place: str) -> dict[str, Any]:
    module, _, path = place.partition(":")
    try:
        found = attrgetter(path)(import_module(module))
    except ImportError:
        return {}
    given = {n: p.default for n, p in inspect.signature(found).parameters.items()} if callable(found) else vars(found)
    return {name: value for name, value in given.items() if value is not None and value is not inspect.Parameter.empty}
