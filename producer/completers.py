"""Shell completion: what may stand for the values of options and arguments, and bash's words.

A shell calls `deconvoy` at each press of the tab key, so nothing heavy is imported here. Of what is offered,
everything is valid as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, get_completion_class

from worker.contract.architectures import DEFAULT_MODEL, MODELS, layers_of
from worker.contract.weights_names import NAMED_WEIGHTS, RANDOM_PREFIX

_SELECTIONS = ("all", "max", "top:9", "unit:0")
_VARIABLE = "_DECONVOY_COMPLETE"
Shell = Literal["bash", "zsh", "fish"]


def script(cli: click.Command, shell: Shell) -> str:
    """What makes the shell complete the command `deconvoy`."""
    return get_completion_class(shell)(cli, {}, "deconvoy", _VARIABLE).source()


def files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The shell's own files and folders."""
    return [CompletionItem(incomplete, type="file")]


def folders(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The shell's own folders."""
    return [CompletionItem(incomplete, type="dir")]


def layers(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The layers of the model that the command line names."""
    return _beginning(incomplete, _layer_names(context))


def specs(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Layer specs: each layer of the model with each kind of selection."""
    return _beginning(
        incomplete,
        (f"{layer}:{selection}" for layer in _layer_names(context) for selection in _SELECTIONS),
    )


def weights(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Names that stand for weights; where none begins like that, files."""
    named = _beginning(incomplete, (*NAMED_WEIGHTS, f"{RANDOM_PREFIX}0"))
    return named or files(context, parameter, incomplete)


def baselines(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The word `last`; where that is not meant, folders."""
    return _beginning(incomplete, ("last",)) or folders(context, parameter, incomplete)


def _beginning(incomplete: str, values: Iterable[str]) -> list[CompletionItem[str]]:
    return [CompletionItem(value) for value in values if value.startswith(incomplete)]


def _layer_names(context: click.Context) -> Sequence[str]:
    model = context.params.get("model", DEFAULT_MODEL)
    return [layer.name for layer in layers_of(model if model in MODELS else DEFAULT_MODEL)]


@add_completion_class
class _Bash(BashComplete):
    """Bash makes several words of `pool1:max` and of `--spec=pool1`, and replaces the last of them alone."""

    name = "bash"
    _before = ""
    """What stands before bash's last word in the word that is meant."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words as they are meant, and the last, which may be incomplete."""
        done, current = super().get_completion_args()
        *meant, last = joined([*done, current])
        self._before = last if last.endswith(":") else last.removesuffix(current)
        return meant, last

    def format_completion(self, item: CompletionItem[str]) -> str:
        """What bash shall put in the place of its last word."""
        if item.type == "plain":
            item = CompletionItem(item.value.removeprefix(self._before))
        return super().format_completion(item)


def joined(words: Sequence[str]) -> list[str]:
    """Bash's words with those made one that it has parted at a colon, and without `=` after an option."""
    meant: list[str] = []
    goes_on = False
    for place, word in enumerate(words):
        is_colon = bool(word) and not word.strip(":")
        if meant and word and (is_colon or goes_on):
            meant[-1] += word
        elif not (word == "=" and place < len(words) - 1):
            meant.append(word)
        goes_on = is_colon
    return meant
