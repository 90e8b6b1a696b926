"""A real terminal for what a program says on stderr; what it prints on stdout goes to a pipe."""

from __future__ import annotations

import errno
import os
import pty
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Ended(NamedTuple):
    """What a program has ended with, printed on stdout, and said on its terminal."""

    returncode: int
    stdout: str
    terminal: str


def on_a_terminal(arguments: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """Run a program whose stderr is a terminal of 120 columns. It must not print more than a pipe holds."""
    ours, its = pty.openpty()
    try:
        process = subprocess.Popen(
            arguments,
            env={**environment, "COLUMNS": "120"},
            stdin=its,
            stdout=subprocess.PIPE,
            stderr=its,
            text=True,
        )
    finally:
        os.close(its)
    said = b""
    try:
        while chunk := _read(ours):
            said += chunk
        printed, _ = process.communicate(timeout=30)
    finally:
        os.close(ours)
        process.kill()
        process.wait()
    return Ended(process.returncode, printed, said.decode().replace("\r\n", "\n"))


def _read(terminal: int) -> bytes:
    """The next bytes; none when the program has closed its side."""
    try:
        return os.read(terminal, 4096)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise
