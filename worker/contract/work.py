"""What the records of a job say together of the work that they took."""

from __future__ import annotations

from collections.abc import Mapping

from worker.contract import keys, records
from worker.contract.errors import JobError
from worker.contract.stages import slowest_stage


class Work:
    """The metadata of the records of the job `job_id` at `place`, added up one after the other.

    Seconds are summed by stage; of each resource, the most counts.
    """

    def __init__(self, job_id: str, place: str) -> None:
        self._job_id = job_id
        self._place = place
        self._weights: dict[bytes, bytes] = {}
        self._stages: dict[str, float] = {}
        self._resources: dict[str, int] = {}

    def add(self, metadata: Mapping[bytes, bytes] | None) -> None:
        """Count a record in. Raises JobError if its weights are others, MessageError if it says nothing."""
        name_and_sha256 = (metadata or {}).get(records.WEIGHTS_METADATA, b"")
        # By sha256: the same file may have another path on another machine.
        self._weights.setdefault(name_and_sha256.rpartition(b" ")[2], name_and_sha256)
        if len(self._weights) > 1:
            names = " and ".join(sorted(name.decode() for name in self._weights.values()))
            raise JobError(
                f"job {self._job_id}: its shards were computed with different weights ({names}); delete "
                f"{keys.SHARDS} in {self._place} and give all workers the same file"
            )
        summary = records.summary_of(metadata)
        for stage, seconds in summary["stages"].items():
            self._stages[stage] = round(self._stages.get(stage, 0.0) + seconds, 6)
        for name, most in summary["resources"].items():
            self._resources[name] = max(self._resources.get(name, 0), most)

    @property
    def weights(self) -> bytes:
        """Name and sha256 of the weights of all records that were added."""
        (weights,) = self._weights.values()
        return weights

    def metadata(self) -> dict[bytes, bytes]:
        """That of a file that joins the records."""
        return {
            records.WEIGHTS_METADATA: self.weights,
            **records.work_metadata(self._stages, self._resources),
        }

    def summary(self, n_images: int, n_failed: int) -> records.JobSummary:
        """What `summary.json` says."""
        return records.JobSummary(
            n_images=n_images,
            n_failed=n_failed,
            stages=self._stages,
            slowest_stage=slowest_stage(self._stages),
            resources=self._resources,
        )
