"""No process is left behind, whatever ends the guard's parent, its command or the guard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

TIMEOUT_S = 20.0
# A command with a child, both deaf to SIGTERM; the child in a session of its own. Writes both ids.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
path = sys.argv[1]
with open(path + ".new", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(path + ".new", path)
time.sleep(600)
"""


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {TIMEOUT_S} s"
        time.sleep(0.02)


def start_guard(*command: str, remove: Path, grace_s: float = 0.2) -> subprocess.Popen[bytes]:
    guard = [sys.executable, "-P", "-m", "producer.guard", f"--grace={grace_s}", f"--remove={remove}", "--"]
    return subprocess.Popen([*guard, *command], stdin=subprocess.PIPE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "private"
    made.mkdir()
    return made


@pytest.fixture
def stubborn(folder: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[psutil.Process]]]:
    pids = tmp_path / "pids"
    guard = start_guard(sys.executable, "-c", STUBBORN, str(pids), remove=folder)
    wait_until(pids.exists, "the command starts")
    processes = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
    yield guard, processes
    for process in processes:
        if process.is_running():
            process.kill()
    if guard.stdin is not None:
        guard.stdin.close()
    guard.wait(TIMEOUT_S)


def test_all_end_when_the_parent_closes_its_end(
    stubborn: tuple[subprocess.Popen[bytes], list[psutil.Process]], folder: Path
) -> None:
    guard, processes = stubborn
    assert guard.stdin is not None
    guard.stdin.close()

    assert guard.wait(TIMEOUT_S) == 128 + signal.SIGKILL
    assert not any(process.is_running() for process in processes)
    assert not folder.exists()


def test_all_end_when_the_guard_is_told_to_end(
    stubborn: tuple[subprocess.Popen[bytes], list[psutil.Process]], folder: Path
) -> None:
    guard, processes = stubborn
    guard.terminate()

    guard.wait(TIMEOUT_S)
    assert not any(process.is_running() for process in processes)
    assert not folder.exists()


def test_ctrl_c_is_left_to_the_parent(
    stubborn: tuple[subprocess.Popen[bytes], list[psutil.Process]],
) -> None:
    guard, processes = stubborn
    guard.send_signal(signal.SIGINT)
    guard.send_signal(signal.SIGHUP)

    with pytest.raises(subprocess.TimeoutExpired):
        guard.wait(0.5)
    assert all(process.is_running() for process in processes)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_the_command_is_told_when_the_guard_itself_is_killed(tmp_path: Path, folder: Path) -> None:
    guard = start_guard(sys.executable, "-c", "import time; time.sleep(600)", remove=folder)
    wait_until(lambda: bool(psutil.Process(guard.pid).children()), "the command starts")
    [child] = psutil.Process(guard.pid).children()
    guard.kill()
    guard.wait(TIMEOUT_S)
    assert guard.stdin is not None
    guard.stdin.close()

    psutil.wait_procs([child], TIMEOUT_S)
    assert not child.is_running()


def test_the_guard_ends_with_its_command_and_its_code_and_leaves_the_log(folder: Path) -> None:
    guard = start_guard(sys.executable, "-c", "raise SystemExit(7)", remove=folder)

    assert guard.wait(TIMEOUT_S) == 7
    assert guard.stdin is not None
    guard.stdin.close()
    assert folder.exists()


def test_what_a_command_leaves_running_ends_with_it(tmp_path: Path, folder: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid))\n"
    )
    guard = start_guard(sys.executable, "-W", "ignore", "-c", code, str(pid), remove=folder)

    assert guard.wait(TIMEOUT_S) == 0
    assert guard.stdin is not None
    guard.stdin.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
