"""`python -m worker.launch`: one Celery worker for each GPU of this machine, or one on the CPU.

Without torch: CUDA must see its one device before torch is imported.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from worker import logs, names
from worker.contract.errors import ComponentError, DeconvoyError, SettingsError
from worker.contract.settings import Settings, load_settings
from worker.machine import gpus
from worker.machine.supervisor import Command, Restarts, Supervisor


def main() -> int:
    """The command line of a machine's workers. Returns the exit code."""
    options = _parse()
    if options.log_format is not None:
        # In the environment, so that workers and what they start do the same.
        os.environ["DECONVOY_LOG_FORMAT"] = options.log_format
    try:
        settings = load_settings()
        if settings.redis_url is None:
            raise SettingsError("DECONVOY_REDIS_URL is not set: name the Redis that holds the queue")
        if importlib.util.find_spec("torch") is None:
            raise ComponentError("torch is not installed here: pip install 'deconvoy[worker]'")
        commands = [command_of(gpu) for gpu in gpus.choose_gpus(options.gpus, settings.device)]
        supervisor = Supervisor(commands, settings.shutdown_s, None if options.no_restart else Restarts())
        logs.configure(settings.log_format, settings.log_level, names.new_name("launcher"))
        with _metrics(options.metrics_port, settings, supervisor):
            return supervisor.run()
    except DeconvoyError as error:
        sys.stderr.write(f"deconvoy: {error}\n")
        return error.exit_code


def command_of(gpu: str | None) -> Command:
    """The worker on `gpu` (None: the CPU)."""
    # -P: a folder named `worker` where the user stands must not be taken for ours.
    arguments = [sys.executable, "-P", "-m", "worker.app"]
    return Command(gpus.label_of(gpu), arguments, gpus.environment_of(gpu, os.environ))


@contextmanager
def _metrics(port: int | None, settings: Settings, supervisor: Supervisor) -> Iterator[None]:
    """Serve the workers' metrics on `port`, if there is one."""
    if port is None:
        yield
        return
    if importlib.util.find_spec("prometheus_client") is None:
        raise ComponentError("prometheus-client is not installed here: pip install 'deconvoy[worker]'")
    from worker.machine.metrics import serving

    with serving(port, str(settings.redis_url), supervisor.states):
        yield


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deconvoy worker", description="Workers of this machine.")
    parser.add_argument("--gpus", default="all", help="all, none, or numbers such as 0,1")
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="serve Prometheus metrics there")
    parser.add_argument("--log-format", choices=["text", "json"], help="default: DECONVOY_LOG_FORMAT")
    parser.add_argument("--no-restart", action="store_true", help="end when a worker ends by itself")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
