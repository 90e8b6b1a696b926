"""Units of photographs, as in an audit's atlas, against zennit-crp, in CPU seconds of one thread.

`make setup` does not install zennit-crp. What it needs besides is there already, so `pip install --no-deps
zennit-crp==0.6.0 zennit==0.4.6` is enough (its metadata asks for a zennit no later than 0.4.6).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.bench.audit import ATLAS_POOLS, MEASURED_UNITS, N_UNITS
from tests.bench.measure import OURS, Ratio, Round, interleaved
from tests.bench.parts import MAX_DIFFERENCE, Disagreement, Row
from tests.bench.setting import Setting
from tests.deconv.common import on_whole_image, photograph, relative_difference
from tests.oracle import trunk_module
from worker.contract.architectures import Layer
from worker.deconv import Reconstruction
from worker.deconv.weights import load_weights

REFERENCES = "get_max_reference"
SHARED = "generate"

N_IMAGES = 3
SHARED_UNITS = 5
"""With a shared forward pass, one unit and so many are run; what a further one costs is the difference."""


class Crp:
    """zennit-crp with zennit's `DeconvNet` rule: reconstructions as ours, with their colours added up.

    `references` is the library's own way to the top images of some units: a forward pass and a way back
    for each unit and image. `shared` is its way to many units of one image, from one forward pass.
    """

    def __init__(self, trunk: torch.nn.Sequential, x_NCHW: Tensor) -> None:
        try:
            self._crp = {name: importlib.import_module(f"crp.{name}") for name in _MODULES}
            self._rules = importlib.import_module("zennit.composites")
        except ImportError as error:
            raise SystemExit(
                "zennit-crp is not installed: pip install --no-deps zennit-crp==0.6.0 zennit==0.4.6"
            ) from error
        self._x_NCHW, self._layer = x_NCHW, str(len(trunk) - 1)
        self._attribution = self._crp["attribution"].CondAttribution(trunk)

    def references(self, folder: str) -> Callable[[int], list[tuple[Tensor, Tensor]]]:
        """Find the top images once, as its tutorial does; then, for the first so many units: which
        images these are, best first, and the reconstructions of each.
        """
        concept, composite = self._crp["concepts"].ChannelConcept(), self._rules.DeconvNet()
        finder = self._crp["visualization"].FeatureVisualization(
            self._attribution,
            _Images(self._x_NCHW),
            {self._layer: concept},
            max_target="max",
            abs_norm=False,
            path=folder,
        )
        n_images = len(self._x_NCHW)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            finder.run(composite, 0, n_images, batch_size=n_images)
        images_NC = self._crp["helper"].load_maximization(finder.ActMax.PATH, self._layer)[0]

        def work(n_units: int) -> list[tuple[Tensor, Tensor]]:
            found = finder.get_max_reference(
                list(range(n_units)),
                self._layer,
                "activation",
                (0, n_images),
                composite,
                rf=True,
                plot_fn=None,
            )
            return [(torch.as_tensor(images_NC[:, unit]), found[unit][1]) for unit in range(n_units)]

        return work

    def shared(self, image: int, places: Sequence[int]) -> Tensor:
        """Of one image the first so many units, each from its place in reading order: N, H, W."""
        mask = self._crp["concepts"].ChannelConcept.mask_rf
        conditions = [{self._layer: {unit: place}} for unit, place in enumerate(places)]
        steps = self._attribution.generate(
            self._x_NCHW[image : image + 1].clone().requires_grad_(),
            conditions,
            self._rules.DeconvNet(),
            mask_map=mask,
            start_layer=self._layer,
            batch_size=1,
            exclude_parallel=False,
            verbose=False,
        )
        return torch.cat([step.heatmap.clone() for step in steps])


_MODULES = ("attribution", "concepts", "helper", "visualization")


class _Images:
    """A data set as zennit-crp wants one; none of its images has a class."""

    def __init__(self, x_NCHW: Tensor) -> None:
        self._x_NCHW = x_NCHW

    def __len__(self) -> int:
        return len(self._x_NCHW)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._x_NCHW[index], 0


def atlas(setting: Setting, pool: Layer) -> Iterator[Row]:
    """Some units of three photographs; both ways of theirs, forward passes included."""
    size_px = setting.x_NCHW.shape[2]
    images_NHWC = torch.cat([photograph(number, size_px, size_px) for number in range(N_IMAGES)])
    x_NCHW = setting.net.normalise(images_NHWC).contiguous()

    def ours() -> list[Reconstruction]:
        ascent = setting.net.forward_units(x_NCHW, pool, [range(N_UNITS)] * N_IMAGES)
        return setting.net.single_activations(setting.net.trunk, ascent.seeds, ascent.up)

    theirs = Crp(trunk_module(setting.weights.state, pool.index + 1), x_NCHW)
    results = ours()
    first = results[:SHARED_UNITS]
    width = size_px >> pool.block
    places = [(one.y or 0) * width + (one.x or 0) for one in first]
    with tempfile.TemporaryDirectory() as folder:
        references = theirs.references(folder)
        differences = {
            REFERENCES: max(_of_units(results, references(MEASURED_UNITS), size_px)),
            SHARED: max(_of_image(first, theirs.shared(0, places), size_px)),
        }
        if not max(differences.values()) < MAX_DIFFERENCE:
            raise Disagreement(f"{pool.name} differs from zennit-crp's: {differences}; a ratio means nothing")

        def one_round() -> Round:
            one_s = _cpu_s(lambda: theirs.shared(0, places[:1]))
            unit_s = (_cpu_s(lambda: theirs.shared(0, places)) - one_s) / (SHARED_UNITS - 1)
            return {
                OURS: _cpu_s(ours),
                REFERENCES: _cpu_s(lambda: references(MEASURED_UNITS)) * N_UNITS / MEASURED_UNITS,
                SHARED: (one_s + unit_s * (N_UNITS - 1)) * N_IMAGES,
            }

        rounds = interleaved(one_round, quick=setting.quick)
    case = f"{pool.name}, {N_UNITS} units x {N_IMAGES}"
    for name, difference in differences.items():
        yield Row("crp", case, name, Ratio.of(rounds, name), difference, N_UNITS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each pool and way."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.crp", description=__doc__)
    parser.add_argument("--weights", default="hed", help="hed, imagenet, random:SEED, a file")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    setting = Setting.of(load_weights(options.weights), 224, quick=options.quick, full=False)
    for pool in ATLAS_POOLS:
        for row in atlas(setting, pool):
            ratio = row.ratio
            print(
                f"{row.case} {row.against} {ratio.median:.2f} ({ratio.lowest:.2f} – {ratio.highest:.2f}) "
                f"{ratio.rounds} rounds, ours {ratio.ours_s:.2f} s, theirs {ratio.baseline_s:.2f} s, "
                f"difference {row.difference:.1e}",
                flush=True,
            )


def _of_units(
    results: Sequence[Reconstruction], found: Sequence[tuple[Tensor, Tensor]], size_px: int
) -> Iterator[float]:
    """Ours come by image, theirs by unit and rank."""
    for unit, (images_N, pictures_N) in enumerate(found):
        for image, pixels_HW in zip(images_N.tolist(), pictures_N, strict=True):
            yield _difference(results[image * N_UNITS + unit], pixels_HW, size_px)


def _of_image(results: Sequence[Reconstruction], pictures_N: Tensor, size_px: int) -> Iterator[float]:
    for one, pixels_HW in zip(results, pictures_N, strict=True):
        yield _difference(one, pixels_HW, size_px)


def _difference(one: Reconstruction, pixels_HW: Tensor, size_px: int) -> float:
    return relative_difference(on_whole_image(one, size_px, size_px).sum(0), pixels_HW)


def _cpu_s(work: Callable[[], Any]) -> float:
    start_s = time.process_time()
    work()
    return time.process_time() - start_s


if __name__ == "__main__":
    main()
