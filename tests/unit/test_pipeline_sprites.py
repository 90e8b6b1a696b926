"""The cells of an atlas: where a window lies in the field that its unit sees."""

from __future__ import annotations

import numpy as np
import pytest

from worker.contract.architectures import MODELS, layers_by_name, layers_of
from worker.deconv.geometry import Size, receptive_window
from worker.pipeline.sprites import Field


def test_fields_of_the_five_pools_are_as_wide_as_the_paper_has_them() -> None:
    fields = [Field.of(layers_by_name()[f"pool{block}"], "vgg16") for block in range(1, 6)]
    assert [field.side for field in fields] == [6, 16, 44, 100, 212]
    assert [field.cell_side for field in fields] == [6, 16, 44, 100, 112]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [Size(224, 224), Size(67, 131)])
def test_every_window_lies_in_the_field_of_its_place_and_an_uncut_one_fills_it(
    model: str, size: Size
) -> None:
    n_uncut = 0
    for layer in layers_of(model):
        field = Field.of(layer, model)
        below = layers_of(model)[: layer.index + 1]
        for place in [
            (y, x) for y in range(size[0] // layer.stride) for x in {0, size[1] // layer.stride // 2}
        ]:
            window = receptive_window(below, *place, size)
            signal = np.ones((3, window.bottom - window.top, window.right - window.left), np.float32)
            uncut = all(
                field.first + index * field.stride >= 0
                and field.first + index * field.stride + field.side <= most
                for index, most in zip(place, size, strict=True)
            )
            if uncut:
                assert signal.shape[1:] == (field.side, field.side)
                assert field.signal_cell(place, window, signal).min() == 1
            elif field.side == field.cell_side:
                # Where the edge cuts it the cell is empty on the edge's side, and nothing is lost.
                cell = field.signal_cell(place, window, signal)
                assert cell.sum() == signal.sum()
                assert (cell[0, 0].max() == 0) == (field.first + place[0] * field.stride < 0)
            n_uncut += uncut
    assert n_uncut > 100


def test_a_cell_is_the_window_shrunk_and_what_is_not_finite_is_empty() -> None:
    field = Field.of(layers_by_name()["pool5"], "vgg16")
    place = (3, 3)
    window = receptive_window(layers_of(), *place, Size(224, 224))
    signal = np.full((3, window.bottom - window.top, window.right - window.left), 2.0, np.float32)
    signal[0, 0, 0] = np.inf
    signal[1, :50] = np.nan
    cell = field.signal_cell(place, window, signal)
    assert cell.shape == (3, 112, 112)
    assert np.isfinite(cell).all()
    assert cell[2].max() == pytest.approx(2)
    assert np.abs(cell[1, :20]).max() == 0
