"""The command: parses, runs the parts, prints a table while it grows, writes bench.json."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import torch

from tests.bench import audit, gpu, parts, pipeline, scale
from tests.bench.setting import Setting
from worker.contract.architectures import Layer, layers_by_name
from worker.contract.errors import WeightsError
from worker.deconv.weights import Weights, load_weights

PARTS = ("units", "ten", "all", "forward", "pipeline", "scale", "audit")
UNITS = (1, 8, 32, 128)
POOLS = (1, 2, 3, 4, 5)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the chosen parts and write the record."""
    options = _parser().parse_args(arguments)
    weights = _weights(options.weights)
    setting = Setting.of(weights, options.size, quick=options.quick, full=options.full)
    pools = [layers_by_name()[f"pool{number}"] for number in options.pools]
    header = setting.described()
    _say("\n".join(f"{key:12} {value}" for key, value in header.items()))
    notes = _notes(pools, options.units, options.full) if "units" in options.parts else []
    _say(*notes, sep="\n")
    _say(
        f"\n{'part':8} {'case':24} {'against':18} {'ratio':>8}  {'min – max':>17} {'ours':>10} {'theirs':>10}"
    )
    rows = []
    for row in _rows(setting, options, pools):
        _say(_line(row))
        rows.append(asdict(row))
    memory = _memory(options.memory_images) if "pipeline" in options.parts else None
    figures = _scale() if "scale" in options.parts else []
    costs = _audit_costs(options.audit_images) if "audit" in options.parts else []
    record = {
        "setting": header,
        "notes": notes,
        "rows": rows,
        "memory": memory,
        "scale": figures,
        "audit": costs,
        "gpu": _gpu(setting),
    }
    options.out.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    _say(f"\nwritten: {options.out}")


def _rows(setting: Setting, options: argparse.Namespace, pools: Sequence[Layer]) -> Iterator[parts.Row]:
    by_name: dict[str, Callable[[], Iterator[parts.Row]]] = {
        "units": lambda: parts.units(setting, pools, options.units),
        "ten": lambda: parts.ten(setting),
        "all": lambda: parts.whole_maps(setting, pools),
        "forward": lambda: parts.pass_up(setting),
        "pipeline": lambda: pipeline.ratios(setting, options.images),
        "audit": lambda: audit.ratios(setting),
    }
    return chain.from_iterable(by_name[name]() for name in by_name if name in options.parts)


def _memory(n_images: int) -> dict[str, object]:
    growth = pipeline.growth(n_images)
    shards = " ".join(f"{rss_mib:.0f}" for rss_mib in growth.rss_mib)
    _say(f"\nmemory of a worker over {growth.n_images} images, MiB after each shard: {shards}")
    _say(f"growth from the second shard to the last: {growth.from_second_mib:+.1f} MiB")
    return {**asdict(growth), "from_second_mib": growth.from_second_mib}


def _audit_costs(sizes: Sequence[int]) -> list[dict[str, object]]:
    _say("\nan audit, ms an image      scan  its tables   together  scan again, with a baseline")
    costs = []
    for cost in audit.costs(sizes):
        _say(
            f"{cost.n_images:>17,} images {cost.scan_ms:8.2f} {cost.tables_ms:11.2f} {cost.ms:10.2f} "
            f"{cost.again_ms:10.2f}"
        )
        costs.append({**asdict(cost), "ms": cost.ms})
    return costs


def _scale() -> list[dict[str, object]]:
    _say(f"\n{'scale':58} {'value':>10} {'':9} limit")
    figures = []
    for figure in scale.figures(scale.Size()):
        _say(figure.line())
        figures.append({**asdict(figure), "holds": figure.holds})
    return figures


def _gpu(setting: Setting) -> dict[str, object]:
    if not torch.cuda.is_available():
        _say("\nGPU: not run, torch sees none here")
        return {"run": False, "reason": "torch sees no GPU here"}
    rates = [asdict(rate) for rate in gpu.rates(setting)]
    _say(*rates, sep="\n")
    return {"run": True, "rates": rates}


def _notes(pools: Sequence[Layer], counts: Sequence[int], full: bool) -> list[str]:
    notes = [
        f"{pool.name} has {pool.channels} units: {count} an image is left out"
        for pool in pools
        for count in counts
        if count > pool.channels
    ]
    if not full:
        notes.append(
            f"baselines cost the same for every unit: {parts.MEASURED_UNITS} an image are measured and "
            "multiplied out, the shared forward pass counted once; --full runs them all"
        )
    return notes


def _line(row: parts.Row) -> str:
    ratio = row.ratio
    spread = f"{ratio.lowest:.2f} – {ratio.highest:.2f}"
    return (
        f"{row.part:8} {row.case:24} {row.against:18} {ratio.median:8.2f}  {spread:>17} "
        f"{ratio.ours_s:8.3f} s {ratio.baseline_s:8.3f} s"
    )


def _weights(name: str | None) -> Weights:
    if name is not None:
        return load_weights(name)
    try:
        return load_weights("hed")
    except WeightsError as error:
        _say(f"weights hed are not at hand, random:0 instead: {error}")
        return load_weights("random:0")


def _part(text: str) -> str:
    # Not `choices`: with nargs="*" argparse holds the default against them too.
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"no part is called {text!r}: choose from {', '.join(PARTS)}")
    return text


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"at least {least} are needed")
        return int(text)

    return number


def _pools(text: str) -> tuple[int, ...]:
    numbers = _numbers(text)
    if not set(numbers) <= set(POOLS):
        raise argparse.ArgumentTypeError("pools are numbered 1 to 5")
    return numbers


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        type=_part,
        default=PARTS,
        help=f"which of {', '.join(PARTS)}; all if none is named",
    )
    parser.add_argument("--units", type=_numbers, default=UNITS, help="units an image: 1,8,32,128")
    parser.add_argument("--pools", type=_pools, default=POOLS, help="which pools: 1,2,3,4,5")
    parser.add_argument("--images", type=_at_least(1), default=320, help="images a run of the pipeline")
    parser.add_argument(
        "--memory-images",
        type=_at_least(pipeline.N_SHARDS),
        default=20_000,
        help="images that a worker's memory is watched over",
    )
    parser.add_argument(
        "--audit-images", type=_numbers, default=audit.SIZES, help="images of the audits: 1000,20000"
    )
    parser.add_argument("--size", type=int, default=224, help="height and width of the images in pixels")
    parser.add_argument(
        "--weights", help="hed (random:0 where it cannot be had), imagenet, random:SEED, a file"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--full", action="store_true", help="run baselines for every unit")
    parser.add_argument("--out", type=Path, default=Path("bench.json"), help="where the record goes")
    return parser


def _say(*lines: object, sep: str = " ") -> None:
    print(*lines, sep=sep, flush=True)


if __name__ == "__main__":
    main()
