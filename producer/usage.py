"""Groups of commands in an order of ours, and wrong usage as a line of ours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

import click

from producer.terminal import printable

SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""Of every context."""


class Commands(click.Group):
    """A group that lists its commands as they were added; `help COMMAND` is `COMMAND --help`."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add it. Its settings are ours even where it is called by itself, as `schedule add` calls `audit`:
        a command keeps the help option that it had first.
        """
        cmd.context_settings = {**SETTINGS, **cmd.context_settings}
        super().add_command(cmd, name)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click gives it)
        """The names, not sorted: the order follows the work."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant. Raises UsageError, which names the nearest."""
        name, *rest = args
        if name == "help" and not ctx.resilient_parsing:
            if not rest:
                click.echo(ctx.get_help())
                ctx.exit()
            return self.resolve_command(ctx, [*rest, "--help"])
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"no such command {name}{_nearest(name, self.commands)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Do what the command does. Wrong usage is said to be that of the command that is called."""
        try:
            return super().invoke(ctx)
        except click.BadOptionUsage as error:
            name = ctx.invoked_subcommand
            if error.ctx is None and name is not None:
                error.ctx = click.Context(self.commands[name], parent=ctx, info_name=name)
            raise


def line_of(error: click.ClickException) -> str:
    """What click refuses, as a line: what happened, to which option of which command, what to do."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return printable(f"deconvoy: {_sentence(error.format_message())}")
    text = _text(error, context)
    see = f"{'' if text.endswith('?') else ';'} see {context.command_path} --help"
    return printable(f"{context.command_path}: {text}{see}")


def _text(error: click.ClickException, context: click.Context) -> str:
    match error:
        case click.NoSuchOption():
            options = [option for parameter in _options(context) for option in parameter.opts]
            return f"no such option {error.option_name}{_nearest(error.option_name, options)}"
        case click.MissingParameter(param=click.Parameter() as parameter):
            return f"{_name(parameter)} is missing{_how_to_write(parameter, context)}"
        case click.BadOptionUsage(option_name=name):
            for option in _options(context):
                if name in option.opts and option.is_flag:
                    return f"{name} takes no value: write {name} alone"
                if name in option.opts:
                    return f"{name} needs a value{_how_to_write(option, context)}"
            # Within `schedule add`: an option of the audit that is to be scheduled.
            return _sentence(error.format_message())
        case click.BadParameter(param=click.Parameter() as parameter):
            return f"{_name(parameter)}: {_sentence(error.message)}"
        case _:
            return _sentence(error.format_message())


def _options(context: click.Context) -> Iterable[click.Option]:
    return (each for each in context.command.get_params(context) if isinstance(each, click.Option))


def _name(parameter: click.Parameter) -> str:
    """The option's long form, or what usage calls the argument."""
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return (parameter.metavar or parameter.human_readable_name).removesuffix("...")


def _how_to_write(parameter: click.Parameter, context: click.Context) -> str:
    is_option = isinstance(parameter, click.Option)
    return f": write {_name(parameter)} {parameter.make_metavar(context)}" if is_option else ""


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _sentence(message: str) -> str:
    """As the middle of a line: click's sentences begin with a capital letter and end with a full stop."""
    return message[:1].lower() + message[1:].removesuffix(".")
