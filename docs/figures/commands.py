"""The project's commands as a reader calls them, and what they leave in a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from docs.figures.drawing import Box


def deconvoy(*words: str) -> Path:
    """Call `deconvoy` with `--json`, on the CPU; returns the place of the job that it has finished.

    Raises CalledProcessError where the command does not end with 0; it has said why on stderr then.
    """
    command = [sys.executable, "-m", "producer.cli", *words, "--json"]
    environment = {**os.environ, "DECONVOY_DEVICE": "cpu"}
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603 (our own command)
    return Path(json.loads(ended.stdout)["place"])


@dataclass(frozen=True)
class FinishedRun:
    """The folder of a finished `deconvoy run` of one photograph: specs `all` and `max`, stored as PNG."""

    place: Path

    @cached_property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The index, by spec."""
        rows = pq.ParquetFile(self.place / "index.parquet").read().to_pylist()
        return {row["spec"]: row for row in rows}

    def photograph(self) -> Image.Image:
        """The photograph as the network saw it."""
        key = next(iter(self.rows.values()))["image_key"]
        return _picture(self.place / "inputs" / f"{key}.jpg")

    def picture(self, spec: str) -> Image.Image:
        """A spec's reconstruction; of `max` its window alone."""
        return _picture(self.place / self.rows[spec]["key"])

    def window(self, spec: str) -> Box:
        """Where that window lies in the photograph, in pixels."""
        row = self.rows[spec]
        return (row["left"], row["top"], row["right"], row["bottom"])


@dataclass(frozen=True)
class FinishedAudit:
    """The folder of a finished `deconvoy audit`."""

    place: Path

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of one of its tables, such as `units`."""
        rows: list[dict[str, Any]] = pq.ParquetFile(self.place / f"{name}.parquet").read().to_pylist()
        return rows

    def cells(self, layer: str, unit: int, what: str) -> list[Image.Image]:
        """A unit's top images from left to right: `reconstructions`, or the `patches` that were seen."""
        strip = _picture(self.place / "atlas" / layer / f"unit-{unit:03d}-{what}.webp")
        side = strip.height
        return [strip.crop((left, 0, left + side, side)) for left in range(0, strip.width, side)]


def _picture(path: Path) -> Image.Image:
    with Image.open(path) as file:
        return file.convert("RGB")
