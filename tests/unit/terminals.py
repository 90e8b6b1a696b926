"""Real terminals: for what a program says on stderr, and for a shell in which a user types."""

from __future__ import annotations

import errno
import os
import pty
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_TIMEOUT_S = 60.0


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


class TypedShell:
    """An interactive shell on a terminal of its own, and a user who types."""

    def __init__(
        self, command: Sequence[str], setup: str, folder: Path, environment: Mapping[str, str]
    ) -> None:
        """Start it in `folder`, and have it read the line `setup`."""
        self._ours, its = pty.openpty()
        try:
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=folder,
                stdin=its,
                stdout=its,
                stderr=its,
                start_new_session=True,
            )
        finally:
            os.close(its)
        self._written = folder / ".written"
        self._written.write_text("")
        self._n_lines = 0
        self._type(f"{setup}; echo ready >>.written\n")

    def words_after(self, keys: str) -> list[str]:
        """Type these keys, and return the words that stand on the line then, as the shell takes them.

        The slash at a folder's end is left out: zsh takes it away as soon as it is not needed.
        """
        beginning, end = "\x01", "\x05"
        # So the words become the arguments of another command, which writes them down.
        line = self._type(f"{keys}{beginning}printf '%s|' {end} >>.written; echo >>.written\n")
        return [word.removesuffix("/") for word in line.split("|")[:-1]]

    def close(self) -> None:
        """End the shell."""
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def _type(self, keys: str) -> str:
        """Type keys that end in a new line of what is written, and return that."""
        os.write(self._ours, keys.encode())
        self._n_lines += 1
        said = b""
        deadline = time.monotonic() + _TIMEOUT_S
        while len(lines := self._written.read_text().splitlines()) < self._n_lines or not lines:
            assert time.monotonic() < deadline, said.decode(errors="replace")
            # Read all the time: a shell whose terminal is full would wait.
            if select.select([self._ours], [], [], 0.05)[0]:
                said += _read(self._ours)
        return lines[-1]
