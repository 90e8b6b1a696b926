"""Section 4-2 of the article: conv1_1 and back. What fades, and what torch's default bias adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from docs.figures.article_way import SEED, ArticleWay, conv_layer, transposed_layer
from docs.figures.drawing import FAINT, INK, MARK, Sheet, picture_of, write
from docs.figures.section import Material, Section, rms, rounded
from worker.display import display

BANDS_PX = ((64, 224), (32, 64), (16, 32), (8, 16), (4, 8), (2, 4))
"""Sizes of detail: wavelengths from, to."""
SHOWN = "pool4"
"""Of which the picture with a bias in each layer is shown."""


@dataclass(frozen=True)
class ThereAndBack:
    """conv1_1 of the photograph, and back: without a bias, and as the article builds the layer."""

    x_NCHW: Tensor
    back_NCHW: Tensor
    biased_NCHW: Tensor
    bias_C: Tensor
    bound: float

    @classmethod
    def of(cls, material: Material) -> ThereAndBack:
        """Computed with torch's layers, in the article's order: no ReLU between the two."""
        convolution = material.net.trunk.blocks[0].convolutions[0]
        x_NCHW = material.x_NCHW.contiguous()
        with torch.random.fork_rng(), torch.inference_mode():
            map_NCHW = conv_layer(convolution)(x_NCHW)
            torch.manual_seed(SEED)
            biased = transposed_layer(convolution, biased=True)
            back_NCHW = transposed_layer(convolution, biased=False)(map_NCHW)
            biased_NCHW = biased(map_NCHW)
        # torch draws it between plus and minus one over the root of the weights that meet in a value.
        return cls(x_NCHW, back_NCHW, biased_NCHW, biased.state_dict()["bias"], (3 * 3 * 3) ** -0.5)

    def gains(self) -> list[float]:
        """How much stronger details of each size are behind than before, in the order of `BANDS_PX`."""
        before_HW, after_HW = _power(self.x_NCHW), _power(self.back_NCHW)
        side = self.x_NCHW.shape[-1]
        frequency = torch.fft.fftfreq(side)[:, None].square() + torch.fft.fftfreq(side).square()
        wavelength_px = frequency.sqrt().reciprocal()
        inside = [(wavelength_px > shortest) & (wavelength_px <= longest) for shortest, longest in BANDS_PX]
        return [float((after_HW[band].sum() / before_HW[band].sum()).sqrt()) for band in inside]


def make(material: Material, way: ArticleWay) -> Section:
    """conv1_1 and back with its bars, and the random bias in one layer and in all."""
    both = ThereAndBack.of(material)
    figures = {"convolution.png": _figure(material, both), "bias.png": _bias_figure(material, both, way)}
    return Section(figures, {"convolution": numbers_of(both), "bias": bias_numbers(way)})


def numbers_of(both: ThereAndBack) -> dict[str, object]:
    """What comes back of details by their size, and what the one layer's bias adds."""
    gains = both.gains()
    difference_NCHW = both.biased_NCHW - both.back_NCHW
    per_channel_C = difference_NCHW.mean((0, 2, 3))
    return {
        "bands_px": [list(band) for band in BANDS_PX],
        "gains": [rounded(gain) for gain in gains],
        "gains_percent": [rounded(100 * gain / max(gains)) for gain in gains],
        "bias": [rounded(float(value)) for value in both.bias_C],
        "bias_bound": rounded(both.bound),
        "difference": [rounded(float(value)) for value in per_channel_C],
        "rms_back": rounded(rms(both.back_NCHW)),
        "rms_input": rounded(rms(both.x_NCHW)),
    }


def bias_numbers(way: ArticleWay) -> dict[str, dict[str, float]]:
    """With such a bias in every layer: what zeros give, and how much of B lies where B is zero."""
    numbers = {}
    for pool in way.pools:
        seed_NCHW = way.strongest_NCHW(pool)
        zeros_NCHW = way.down(pool, torch.zeros_like(seed_NCHW), biased=True)
        right_NCHW = way.down(pool, seed_NCHW)
        biased_NCHW = way.down(pool, seed_NCHW, biased=True)
        outside = biased_NCHW[right_NCHW == 0]
        numbers[pool] = {
            "zeros_give_at_most": rounded(float(zeros_NCHW.abs().max())),
            "zeros_give_without": float(way.down(pool, torch.zeros_like(seed_NCHW)).abs().max()),
            "b_at_most": rounded(float(right_NCHW.abs().max())),
            "outside_percent": rounded(
                100 * float(outside.double().square().sum() / biased_NCHW.double().square().sum())
            ),
        }
    return numbers


def _power(values_NCHW: Tensor) -> Tensor:
    """The strength of each frequency, of the three colours together; that of the mean is left out."""
    centred_NCHW = values_NCHW.double() - values_NCHW.double().mean((2, 3), keepdim=True)
    power_HW: Tensor = torch.fft.fft2(centred_NCHW).abs().square().sum((0, 1))
    return power_HW


def _drawn(material: Material, pixels_NCHW: Tensor) -> tuple[Image.Image, float]:
    """Zero is grey, and the scale is as in every picture of the project."""
    drawn_HWC, scale = display(pixels_NCHW[0].numpy(), material.net.normalisation.pixel_std_C)
    return picture_of(drawn_HWC), scale


def _figure(material: Material, both: ThereAndBack) -> Image.Image:
    sheet = Sheet(columns=3, rows=1, cell_px=224)
    for column, heading in enumerate(("photograph", "conv1_1 and back", "what comes back")):
        sheet.heading(column, heading)
    sheet.put(0, 0, picture_of(material.pixels_HWC))
    back, scale = _drawn(material, both.back_NCHW)
    sheet.put(1, 0, back, f"grey is 0, white {scale:.0f}")
    _bars(sheet, 2, both.gains())
    sheet.caption(2, 0, "of details, by size; largest = 100 %")
    return sheet.figure


def _bars(sheet: Sheet, column: int, gains: Sequence[float]) -> None:
    left, top = sheet.corner(column, 0)
    step = sheet.cell_px / len(gains)
    for row, (gain, (shortest, longest)) in enumerate(zip(gains, BANDS_PX, strict=True)):
        y = top + row * step
        share = gain / max(gains)
        write(sheet.draw, (left, y + 8), f"{shortest}-{longest} px", 14, INK)
        start = left + 84
        end = start + share * (sheet.cell_px - 84 - 46)
        sheet.draw.rectangle((start, y + 8, end, y + step - 8), fill=MARK)
        write(sheet.draw, (end + 6, y + 8), f"{100 * share:.0f} %", 14, FAINT)


def _bias_figure(material: Material, both: ThereAndBack, way: ArticleWay) -> Image.Image:
    sheet = Sheet(columns=4, rows=1, cell_px=224)
    seed_NCHW = way.strongest_NCHW(SHOWN)
    difference, scale = _drawn(material, both.biased_NCHW - both.back_NCHW)
    sheet.heading(0, "conv1_1: the difference")
    sheet.put(0, 0, difference, f"white is {scale:.2g}")
    for column, (heading, seed, biased) in enumerate(
        (
            (f"B of {SHOWN}, no bias", seed_NCHW, False),
            ("random bias in all layers", seed_NCHW, True),
            ("the same, zeros in", torch.zeros_like(seed_NCHW), True),
        ),
        start=1,
    ):
        picture, scale = _drawn(material, way.down(SHOWN, seed, biased=biased))
        sheet.heading(column, heading)
        sheet.put(column, 0, picture, f"white is {scale:.2g}")
    return sheet.figure
