"""Where a model's first weights come from, which of them it took, and their hash.

A start is named by the parameter `init`: `imagenet`, `imagenet_distilled`, `faces`, a file of
weights, or a folder that holds one for each architecture. (`scratch` reads none.)
"""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from timm.models import load_state_dict, swin_transformer, vision_transformer
from torch import nn

from helpers.errors import StudyError
from helpers.files import project_path, sha256, short_path

FACES_WEIGHTS = Path("data/weights/faces")
IMAGENET = ("imagenet", "imagenet_distilled")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")

Weights = dict[str, torch.Tensor]


def read_weights(architecture: str, init: str) -> tuple[Weights, dict]:
    """Read the weights that `init` names for a timm architecture, as float32.

    Args:
        architecture: timm's name with its tag, e.g. `resnet50.a2_in1k`.
        init: `imagenet` or `imagenet_distilled` (from the hub, or timm's cache of it), `faces`,
            a file in timm's format (safetensors, or a torch file that holds the tensors, or a
            `model` or `state_dict` of them), or a folder with `<name>.safetensors` or `.pth`.

    Returns:
        The tensors by name, and a description of the source for `params.json`. `sha256` in it is
        that of a file; `tensors_sha256` is told for a download as well, see `tensors_sha256`.

    Raises:
        StudyError: where they cannot be fetched, found or read.
    """
    name = architecture.split(".")[0]
    start = {"init": init, "architecture": name}
    if init in IMAGENET:
        weights = _fetch(architecture)
        start["architecture"] = architecture
    else:
        path = _find(architecture, init)
        weights = _read(path)
        start |= {"file": short_path(path), "sha256": sha256(path)}
        if init != "faces" and project_path(init).is_dir():
            start["folder"] = short_path(init)
    weights = {
        key: value.float() if value.is_floating_point() else value for key, value in weights.items()
    }
    return weights, start | {"tensors_sha256": tensors_sha256(weights)}


def _fetch(architecture: str) -> Weights:
    try:
        return timm.create_model(architecture, pretrained=True).state_dict()
    except Exception as error:
        name = architecture.split(".")[0]
        raise StudyError(
            f"The ImageNet weights of {architecture} could not be fetched "
            f"({type(error).__name__}): connect to the hub once, or set init to a local file of "
            f"these weights or a folder that holds them as {name}.safetensors or {name}.pth."
        ) from error


def _find(architecture: str, init: str) -> Path:
    """The file that `init` means: itself, or the architecture's in a folder."""
    path = project_path(FACES_WEIGHTS if init == "faces" else init)
    name = architecture.split(".")[0]
    if path.is_dir() or init == "faces":
        files = [path / f"{stem}{end}" for stem in (name, architecture) for end in _SUFFIXES]
        path = next((file for file in files if file.is_file()), files[0])
    if not path.is_file():
        raise StudyError(f"The weights file {short_path(path)} (init '{init}') does not exist.")
    return path


def _read(path: Path) -> Weights:
    try:
        weights = load_state_dict(str(path), weights_only=True)
        weights = {key: v for key, v in weights.items() if isinstance(v, torch.Tensor)}
    except Exception as error:
        raise StudyError(
            f"The weights file {short_path(path)} cannot be read ({type(error).__name__})."
        ) from error
    if not weights:
        raise StudyError(f"The weights file {short_path(path)} holds no tensors.")
    return weights


def load_weights(model: nn.Module, weights: Weights, start: Mapping) -> dict:
    """Load `weights` into `model`, but for its head, which stays new.

    Position embeddings of another image size, and Swin's relative positions of another window,
    are resampled as timm does.

    Args:
        model: a timm model.
        weights: by timm's names (or the names that its authors' files have, which timm knows).
        start: the description from `read_weights`.

    Returns:
        `start` and what became of the tensors: the number `loaded`; the names that were
        `resampled`; those of the model that are `new`; those of the file that were `unused`.

    Raises:
        StudyError: where a tensor is missing or of another shape.
    """
    where = start.get("file", start["architecture"])
    name = start["architecture"].split(".")[0]
    head = head_names(model)
    try:
        fitted = _resample(model, weights)
        body = {key: value for key, value in fitted.items() if key not in head}
        missing, unexpected = model.load_state_dict(body, strict=False)
    # Weights of another architecture can fail anywhere in timm's conversion.
    except Exception as error:
        raise StudyError(
            f"The weights file {where} does not fit {name}: its tensors have other shapes or "
            "names than that architecture's."
        ) from error
    lacking = sorted(set(missing) - set(head))
    if lacking:
        raise StudyError(
            f"The weights file {where} does not fit {name}: it lacks {len(lacking)} tensors, "
            f"{lacking[0]} among them."
        )
    changed = [k for k in body if k in weights and body[k].shape != weights[k].shape]
    return dict(start) | {
        "loaded": len(body) - len(unexpected),
        "resampled": sorted(changed),
        "new": head,
        "unused": sorted([*(key for key in fitted if key in head), *unexpected]),
    }


def _resample(model: nn.Module, weights: Weights) -> Weights:
    if isinstance(model, swin_transformer.SwinTransformer):
        with warnings.catch_warnings():
            # torch's words to timm on how it indexes, which no reader of ours can mend
            warnings.simplefilter("ignore", UserWarning)
            return swin_transformer.checkpoint_filter_fn(weights, model)
    if isinstance(model, vision_transformer.VisionTransformer):
        return vision_transformer.checkpoint_filter_fn(weights, model)
    return weights


def add_distillation_token(weights: Weights) -> Weights:
    """Return the weights of a DeiT with a distillation token that starts as its class token.

    Its position, too, starts as the class token's: (1, 1 + patches, D) becomes
    (1, 2 + patches, D).
    """
    position = weights["pos_embed"]
    return weights | {
        "dist_token": weights["cls_token"].clone(),
        "pos_embed": torch.cat([position[:, :1], position[:, :1], position[:, 1:]], dim=1),
    }


def head_names(model: nn.Module) -> list[str]:
    """Return the names of the tensors of a timm model's classifiers."""
    heads = model.pretrained_cfg["classifier"]
    heads = (heads,) if isinstance(heads, str) else heads
    return [key for key in model.state_dict() if key.rpartition(".")[0] in heads]


def tensors_sha256(weights: Weights) -> str:
    """Return a SHA-256 over names, types, shapes and values, whatever file they came in."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        value = weights[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
