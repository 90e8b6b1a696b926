"""Which workers a machine gets, and what keeps them going: with real processes that stand in for Celery."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from worker.contract.errors import DeviceError
from worker.launch import command_of
from worker.machine.gpus import choose_gpus, environment_of, visible_gpus

TIMEOUT_S = 60.0

WORKER = textwrap.dedent(
    """
    import os, signal, sys, time
    from pathlib import Path

    folder, n_deaths, hears = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(",")

    def say(word):
        with (folder / "said").open("a") as said:
            said.write(word + "\\n")

    n_starts = len(list(folder.glob("start-*")))
    (folder / f"start-{n_starts}").write_text(os.environ["DECONVOY_WORKER"])
    if n_starts < n_deaths:
        sys.exit(7)

    def on_signal(signum, _):
        name = signal.Signals(signum).name
        say(name)
        if name in hears:
            sys.exit(0)

    for signum in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(signum, on_signal)
    say("ready")
    while not (folder / "finish").exists():
        time.sleep(0.01)
    say("finished")
    """
)
SUPERVISE = textwrap.dedent(
    """
    import os, sys
    from worker import logs
    from worker.machine.supervisor import Command, Restarts, Supervisor

    shutdown_s, early_s, restart, *command = sys.argv[1:]
    logs.configure("text", "INFO", "launcher")
    restarts = Restarts(first_pause_s=0.05, longest_pause_s=0.4, early_s=float(early_s))
    commands = [Command("cpu", [sys.executable, *command], os.environ)]
    sys.exit(Supervisor(commands, float(shutdown_s), restarts if restart == "yes" else None).run())
    """
)


@dataclass
class Supervised:
    """A supervisor with one worker, as a process of its own."""

    process: subprocess.Popen[str]
    folder: Path

    @property
    def n_starts(self) -> int:
        return len(list(self.folder.glob("start-*")))

    @property
    def said(self) -> list[str]:
        path = self.folder / "said"
        return path.read_text().split() if path.exists() else []

    def wait_until_said(self, word: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while word not in self.said:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"{word!r} is not in {self.said}"
            time.sleep(0.01)

    def end(self) -> tuple[int, str]:
        """Wait for its end; exit code and log. Whatever it has started must be gone."""
        family = psutil.Process(self.process.pid).children() if self.process.poll() is None else []
        _, log = self.process.communicate(timeout=TIMEOUT_S)
        assert not any(child.is_running() for child in family)
        return self.process.returncode, log


Start = Callable[..., Supervised]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Start]:
    started: list[Supervised] = []

    def start(
        *,
        n_deaths: int = 0,
        hears: str = "SIGTERM",
        shutdown_s: float = 300,
        early_s: float = 300,
        restart: bool = True,
    ) -> Supervised:
        worker = ["-c", WORKER, str(tmp_path), str(n_deaths), hears]
        options = [str(shutdown_s), str(early_s), "yes" if restart else "no"]
        command = [sys.executable, "-c", SUPERVISE, *options, *worker]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(Supervised(process, tmp_path))
        return started[-1]

    yield start
    for process in (supervised.process for supervised in started):
        if process.poll() is None:
            for child in psutil.Process(process.pid).children():
                child.kill()
            process.kill()
        process.communicate()


def test_a_worker_that_dies_is_started_again_after_a_pause_that_doubles(supervise: Start) -> None:
    supervised = supervise(n_deaths=4)
    supervised.wait_until_said("ready")
    supervised.process.terminate()

    code, log = supervised.end()

    assert (code, supervised.n_starts) == (0, 5)
    pauses = [line.rpartition(" in ")[2] for line in log.splitlines() if "starts again" in line]
    assert pauses == ["0.05 s", "0.1 s", "0.2 s", "0.4 s"]
    assert log.count("ended with code 7") == 4


def test_each_start_has_a_name_of_its_own(supervise: Start, tmp_path: Path) -> None:
    supervised = supervise(n_deaths=2)
    supervised.wait_until_said("ready")
    supervised.process.terminate()
    supervised.end()

    names = {(tmp_path / f"start-{number}").read_text() for number in range(3)}
    assert len(names) == 3
    assert all(name.startswith("deconvoy-cpu-") for name in names)


def test_a_worker_that_cannot_start_at_all_is_given_up_with_its_exit_code(supervise: Start) -> None:
    supervised = supervise(n_deaths=1000)

    code, log = supervised.end()

    assert (code, supervised.n_starts) == (7, 5)
    assert "the death number 5 soon after its start: given up" in log


def test_deaths_after_some_life_are_never_too_many(supervise: Start) -> None:
    supervised = supervise(n_deaths=8, early_s=0)
    supervised.wait_until_said("ready")
    supervised.process.terminate()

    code, log = supervised.end()

    assert (code, supervised.n_starts) == (0, 9)
    assert log.count("starts again in 0.4 s") == 5


def test_without_restarts_the_first_death_is_the_end(supervise: Start) -> None:
    supervised = supervise(restart=False)
    supervised.wait_until_said("ready")
    [worker] = psutil.Process(supervised.process.pid).children()
    worker.kill()

    code, _ = supervised.end()

    assert (code, supervised.n_starts) == (128 + signal.SIGKILL, 1)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_one_signal_lets_a_worker_finish(supervise: Start, tmp_path: Path, signum: int) -> None:
    supervised = supervise(hears="nothing")
    supervised.wait_until_said("ready")
    supervised.process.send_signal(signum)
    supervised.wait_until_said("SIGTERM")
    (tmp_path / "finish").touch()

    code, _ = supervised.end()

    assert (code, supervised.said) == (0, ["ready", "SIGTERM", "finished"])


def test_a_second_signal_ends_a_worker_at_once(supervise: Start) -> None:
    supervised = supervise(hears="SIGQUIT")
    supervised.wait_until_said("ready")
    supervised.process.terminate()
    supervised.wait_until_said("SIGTERM")
    supervised.process.terminate()

    code, _ = supervised.end()

    assert (code, supervised.said) == (0, ["ready", "SIGTERM", "SIGQUIT"])


def test_a_worker_that_has_not_finished_in_time_is_ended(supervise: Start) -> None:
    supervised = supervise(hears="SIGQUIT", shutdown_s=0)
    supervised.wait_until_said("ready")
    supervised.process.terminate()

    code, _ = supervised.end()

    assert (code, supervised.said) == (0, ["ready", "SIGTERM", "SIGQUIT"])


def test_a_worker_that_hears_nothing_is_killed_at_a_third_signal(supervise: Start) -> None:
    supervised = supervise(hears="nothing")
    supervised.wait_until_said("ready")
    for word in ("SIGTERM", "SIGQUIT"):
        supervised.process.terminate()
        supervised.wait_until_said(word)
    supervised.process.terminate()

    code, log = supervised.end()

    assert code == 0
    assert "are killed" in log


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        "echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-2222-3333-4444-555555555555)'\n"
        "echo '  MIG 1g.10gb     Device  0: (UUID: MIG-11111111-2222-3333-4444-555555555555)'\n"
        "echo 'GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-66666666-7777-8888-9999-000000000000)'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("wanted", "device", "gpus"),
    [
        ("all", "auto", ["0", "1"]),
        ("all", "cpu", [None]),
        ("none", "auto", [None]),
        ("1", "auto", ["1"]),
        ("1,0,1", "cuda", ["1", "0"]),
    ],
)
def test_each_gpu_that_is_wanted_gets_one_worker(
    two_gpus: None, wanted: str, device: str, gpus: list[str | None]
) -> None:
    assert choose_gpus(wanted, device) == gpus


def test_a_gpu_that_is_not_there_is_refused_and_those_there_are_named(two_gpus: None) -> None:
    with pytest.raises(DeviceError, match=r"GPU '2'.*0, 1"):
        choose_gpus("0,2", "auto")


def test_without_gpus_all_means_one_worker_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    assert choose_gpus("all", "auto") == [None]


def test_without_gpus_a_machine_that_is_to_use_them_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    with pytest.raises(DeviceError, match="DECONVOY_DEVICE=cuda is set, but no GPU"):
        choose_gpus("all", "cuda")


def test_the_devices_that_cuda_may_see_already_stay_the_limit(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")

    assert visible_gpus() == ["1"]


def test_each_worker_sees_its_own_device_alone() -> None:
    on_gpu, on_cpu = environment_of("1", {"HOME": "/h"}), environment_of(None, {})

    assert (on_gpu["CUDA_VISIBLE_DEVICES"], on_gpu["HOME"]) == ("1", "/h")
    assert (on_cpu["CUDA_VISIBLE_DEVICES"], on_cpu["DECONVOY_DEVICE"]) == ("", "cpu")
    assert on_gpu["CUDA_DEVICE_ORDER"] == on_cpu["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_workers_are_labelled_by_their_device() -> None:
    assert [command_of(gpu).label for gpu in ("0", None)] == ["gpu0", "cpu"]
