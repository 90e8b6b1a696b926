"""The images of a shard as the calling thread gets them: loaded ahead, in batches; or one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from worker.contract.errors import ImageQuarantined
from worker.contract.jobs import ManifestEntry
from worker.pipeline.batches import Batcher, BatchSizes
from worker.pipeline.caution import Caution
from worker.pipeline.loading import Failed, Loaded, Loader
from worker.pipeline.stages import peak_rss_bytes
from worker.pipeline.threads import Crew

_QUARANTINED = ImageQuarantined(
    "several processes died while they worked on this image, and it was left alone; look at the file; "
    "a job tries it again with resume --failed, a data set's next audit by itself"
)

_Other = TypeVar("_Other")


class Intake(Generic[_Other]):
    """Takes in what the threads of `crew` give: images here, everything else to `on_other`."""

    def __init__(
        self,
        crew: Crew[Loaded | Failed | _Other],
        loader: Loader,
        sizes: BatchSizes,
        on_other: Callable[[_Other], None],
    ) -> None:
        self._crew = crew
        self._loader = loader
        self._sizes = sizes
        self._on_other = on_other
        self._ahead: dict[int, Loaded | Failed] = {}
        self._most_ahead = 0

    def batches(
        self, entries: Mapping[int, ManifestEntry], caution: Caution | None
    ) -> Iterator[Failed | list[Loaded]]:
        """All images of `entries`, which are by position: batches of one size, and what cannot be used.

        With `caution` an image comes alone, and nothing is touched of the next before that is asked for.
        """
        if caution is None:
            yield from self._together(entries)
        else:
            yield from self._one_by_one(entries, caution)

    def take(self) -> None:
        """Wait for one result of the crew."""
        self._sort(self._crew.result())

    def take_what_is_done(self) -> None:
        """Take the results that need no waiting."""
        for result in self._crew.results_so_far():
            self._sort(result)

    def resources(self) -> dict[str, int]:
        """The most that was in use up to now: see `records.RESOURCES_METADATA`."""
        return {"peak_rss_bytes": peak_rss_bytes(), "most_loaded_ahead": self._most_ahead}

    def _together(self, entries: Mapping[int, ManifestEntry]) -> Iterator[Failed | list[Loaded]]:
        batcher: Batcher[Loaded] = Batcher(self._sizes)
        for outcome in self._loaded(entries):
            if isinstance(outcome, Failed):
                yield outcome
            else:
                yield from batcher.add(outcome)
        yield from batcher.rest()

    def _one_by_one(
        self, entries: Mapping[int, ManifestEntry], caution: Caution
    ) -> Iterator[Failed | list[Loaded]]:
        """No image is touched before the one in hand is done with, whatever it does to this process."""
        for position in sorted(caution.quarantined & entries.keys()):
            yield Failed(position, entries[position], _QUARANTINED, None)
        for position in caution.order(entries):
            caution.on_start(position)
            self._loader.submit(position, entries[position])
            outcome = self._wait_for(position)
            yield outcome if isinstance(outcome, Failed) else [outcome]
        caution.on_start(None)

    def _loaded(self, entries: Mapping[int, ManifestEntry]) -> Iterator[Loaded | Failed]:
        """All images in order; those behind the one that is given are loaded meanwhile."""
        positions = list(entries)
        n_submitted = 0
        for n_given, position in enumerate(positions):
            while n_submitted < min(n_given + 1 + self._sizes.n_ahead, len(positions)):
                self._loader.submit(positions[n_submitted], entries[positions[n_submitted]])
                n_submitted += 1
            self.take_what_is_done()
            yield self._wait_for(position)

    def _wait_for(self, position: int) -> Loaded | Failed:
        with self._loader.stages.measure("wait"):
            while position not in self._ahead:
                self.take()
        return self._ahead.pop(position)

    def _sort(self, result: Loaded | Failed | _Other) -> None:
        if isinstance(result, Loaded | Failed):
            self._ahead[result.position] = result
            self._most_ahead = max(self._most_ahead, len(self._ahead))
        else:
            self._on_other(result)
