"""Groups whose commands are imported when they are used: a list command must not pay for what `up` needs."""

from __future__ import annotations

from importlib import import_module

import click


class LazyGroup(click.Group):
    """A group of `name -> (module, attribute, help)`. The help stands here so that `--help` imports nothing."""

    def __init__(
        self, *args: object, lazy: dict[str, tuple[str, str, str]], words: dict[str, str] | None = None, **kwargs: object
    ) -> None:
        """`words`: what other programs call a command -> what to type here (several with " or " between)."""
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.lazy = lazy
        self.words = words or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order they are declared in: the order in which they are met."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import it."""
        if cmd_name not in self.lazy:
            return None
        module, attribute, _ = self.lazy[cmd_name]
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Raises click's error for a command that is not there, with the one that may be meant as its `hint`."""
        if args[0] not in self.lazy and not args[0].startswith("-"):
            error = click.UsageError(f"there is no command '{args[0]}'", ctx)
            error.hint = self._meant(ctx, args[0])  # type: ignore[attr-defined]
            raise error
        return super().resolve_command(ctx, args)

    def _meant(self, ctx: click.Context, name: str) -> str:
        """By other programs' words, by likeness, or because a group of this one has it; else where to look."""
        found = self.words[name].split(" or ") if name in self.words else []
        if not found:
            import difflib

            path = ctx.command_path
            found = [f"{path} {near}" for near in difflib.get_close_matches(name, self.lazy, n=2, cutoff=0.65)]
            groups = [(each, self.get_command(ctx, each)) for each, (_, attribute, _) in self.lazy.items() if each == attribute]
            inner = [f"{path} {each} {name}" for each, group in groups if isinstance(group, LazyGroup) and name in group.lazy]
            found = found or inner
        return f"did you mean: {' or: '.join(found)}?" if found else f"see: {ctx.command_path} --help"

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in self.lazy.items()])
