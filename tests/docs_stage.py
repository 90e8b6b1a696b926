"""What the blocks of the documents run on: photographs, a Redis, a bucket, a worker, finished jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from PIL import Image

from tests.cluster import TIMEOUT_S, Deconvoy, redis_server
from tests.documents import ROOT
from tests.photographs import photographs
from tests.s3_server import environment_for, moto_server

BUCKET = "bucket"
SMALL = ("--weights", "random:0", "--size", "32")
"""Put behind a job's own options, of which the last counts."""

PRELUDE = """
set -euo pipefail
deconvoy() {
  case "$1 ${2-}" in
    run\\ *|submit\\ *|audit\\ *|schedule\\ add) set -- "$@" $SMALL ;;
  esac
  case "$*" in
    *--layer*) ;;
    audit\\ *) set -- "$@" --layer pool1 ;;
  esac
  case "$1" in
    worker|beat) until_it_works "$@" ;;
    *) "$PYTHON" -P -m producer.cli "$@" ;;
  esac
}
until_it_works() {
  local log="$1-$RANDOM.log"
  "$PYTHON" -P -m producer.cli "$@" >"$log" 2>&1 &
  until grep -q 'ready\\|beat: Starting' "$log"; do
    kill -0 $! || { cat "$log" >&2; return 1; }
    sleep 0.1
  done
}
make() { command make --directory "$ROOT" --dry-run "$@"; }
"""
"""Commands as the blocks name them: small; what would run for ever goes on beside the block until its end;
targets of the Makefile are looked up and not made.
"""


_JOBS = """
import json, sys
from producer import audit, submit
folder, bucket = sys.argv[1:]
small = {"weights": "random:0", "size_px": 32}
jobs = {
    f"{folder}/results": (submit, f"{folder}/photos", {"specs": ["pool1:all", "pool5:max", "pool5:top:9"]}),
    f"{folder}/shared/results": (submit, f"{folder}/shared/photos", {}),
    bucket: (submit, f"{bucket}/photos", {}),
    f"{folder}/audits": (audit, f"{folder}/photos", {"layers": ["pool1"]}),
}
handles = {out: do(source, out=out, **small, **options) for out, (do, source, options) in jobs.items()}
for handle in handles.values():
    assert handle.wait().n_failed == 0
print(json.dumps({out: handle.id for out, handle in handles.items()}))
"""


@dataclass(frozen=True)
class Stage:
    """A folder to stand in, the environment of commands, and the id of the finished job in each `--out`."""

    folder: Path
    environment: dict[str, str]
    ids: dict[str, str]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, then end what it has left running."""
        with tempfile.TemporaryFile("w+") as out:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                # Not a pipe: what runs on would hold it open.
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            try:
                code = process.wait(TIMEOUT_S)
            finally:
                _end_session(process.pid)
            out.seek(0)
            return subprocess.CompletedProcess(command, code, out.read())


@contextmanager
def stage() -> Iterator[Stage]:
    """Everything that the blocks need; it is ended and removed at the end."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DECONVOY_", "AWS_"))}
    # A short path: it holds a socket.
    with tempfile.TemporaryDirectory(prefix="dv-", dir="/tmp") as name, redis_server(Path(name)) as redis_url:
        folder = Path(name)
        for photos in (folder / "photos", folder / "shared/photos", folder / "data/photos"):
            photos.mkdir(parents=True)
            for image, called in zip(photographs(), ("cat.jpg", "astronaut.jpg"), strict=False):
                Image.open(image).convert("RGB").resize((64, 64)).save(photos / called)
        for called in ("cat.jpg", "chelsea.png"):
            (folder / called).symlink_to(folder / "photos/cat.jpg")
        (folder / "patches").symlink_to(folder / "photos")
        with moto_server() as endpoint_url:
            environment = {
                **kept,
                **environment_for(endpoint_url),
                "CUDA_VISIBLE_DEVICES": "",
                "DECONVOY_REDIS_URL": redis_url,
                "DECONVOY_SHUTDOWN_S": "0",
                "TMPDIR": name,
                "PYTHON": sys.executable,
                "ROOT": str(ROOT),
                "SMALL": " ".join(SMALL),
            }
            worker = Deconvoy(environment, folder).logging(folder / "worker.log", "worker", "--gpus", "none")
            with worker:
                _fill_bucket(folder / "photos", endpoint_url)
                yield Stage(folder, environment, _finished_jobs(folder, environment))


def _fill_bucket(photos: Path, endpoint_url: str) -> None:
    import boto3

    credentials = {"aws_access_key_id": "a-key", "aws_secret_access_key": "a-secret"}
    client = boto3.client("s3", endpoint_url=endpoint_url, region_name="us-east-1", **credentials)
    client.create_bucket(Bucket=BUCKET)
    for photo in photos.iterdir():
        client.upload_file(str(photo), BUCKET, f"photos/{photo.name}")
    client.close()


def _finished_jobs(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """The ids of jobs that blocks name as photos-1a2b3c4d5e, by the place that they stand in."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _JOBS, str(folder), f"s3://{BUCKET}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ids: dict[str, str] = json.loads(done.stdout)
    return ids


def _end_session(session: int) -> None:
    """End all processes of a session, and all that they started."""
    members: set[psutil.Process] = set()
    for pid in psutil.pids():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(pid) == session:
                process = psutil.Process(pid)
                members |= {process, *process.children(recursive=True)}
    for process in members:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(members, 15)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive)
