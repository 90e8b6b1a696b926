"""`python -m producer.guard [--grace S] [--remove FOLDER] -- COMMAND…`: no process is left behind.

Runs COMMAND in a process group of its own and holds stdin, the other end of which only our parent has.
When that end closes (our parent ended, however it did), when COMMAND ends or when we are told to end, the
whole group is ended: SIGTERM, a grace, SIGKILL. Then FOLDER is removed, unless COMMAND ended by itself:
then our parent lives and may read its log. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.05


def main() -> int:
    """Run and guard the command of `sys.argv`. Returns its exit code, 128 + N for signal N."""
    parser = argparse.ArgumentParser(prog="python -m producer.guard")
    parser.add_argument("--grace", type=float, default=5.0, metavar="S")
    parser.add_argument("--remove", type=Path, metavar="FOLDER")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    # What a terminal sends to everyone is our parent's affair: it tells us by closing stdin.
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    # Orphans of COMMAND become ours, whatever group they have moved to.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wake = _wake_on(signal.SIGCHLD, signal.SIGTERM)
    child = subprocess.Popen(  # noqa: S603 (a list of words, no shell)
        options.command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
    ended_by_itself = _wait_for_reason_to_end(child, wake)
    end_group(child, options.grace)
    if options.remove is not None and not ended_by_itself:
        shutil.rmtree(options.remove, ignore_errors=True)
    code = child.returncode
    return 128 - code if code < 0 else code


def end_group(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """End the group of `child`, and on Linux what else has become our child."""
    deadline = time.monotonic() + grace_s
    _signal_group(child.pid, signal.SIGTERM)
    while _reap(child) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    while _reap(child):
        _signal_group(child.pid, signal.SIGKILL)
        for orphan in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)
        time.sleep(_POLL_S)


def _wait_for_reason_to_end(child: subprocess.Popen[bytes], wake: int) -> bool:
    """Return when there is one; True if it is that the child has ended."""
    while True:
        ready, _, _ = select.select([sys.stdin.fileno(), wake], [], [])
        if sys.stdin.fileno() in ready and not os.read(sys.stdin.fileno(), 4096):
            return False
        if wake in ready and signal.SIGTERM in os.read(wake, 4096):
            return False
        if child.poll() is not None:
            return True


def _wake_on(*signums: signal.Signals) -> int:
    """A file descriptor that becomes readable, with the signal's number, when one of these comes."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for signum in signums:
        signal.signal(signum, lambda *_: None)
    return reader


def _reap(child: subprocess.Popen[bytes]) -> bool:
    """Take leave of children that ended; True while any is left."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return _group_lives(child.pid)
        if pid == 0:
            return True
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        # macOS says "no permission" of a group that has only dead members.
        return False
    return True


def _signal_group(group: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)


def _children() -> list[int]:
    """The processes whose parent we are; empty where /proc does not tell."""
    try:
        return [*map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())]
    except OSError:
        return []


def _end_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        call: Callable[..., int] = ctypes.CDLL(None).prctl
        call(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
