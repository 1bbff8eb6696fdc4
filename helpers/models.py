"""Teachers and students: timm architectures with one logit a head, and a named start.

Every model gives P(pain) as the sigmoid of a logit, so the binary cross-entropy of the protocol is
literal. A teacher has one head; a student has two, on the class and the distillation token.
"""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from helpers.devices import precision
from helpers.files import StudyError, project_path, sha256, short_path
from helpers.runs import Run, weights_of

# Weights of about 300 epochs on ImageNet-1k alone, so that the teachers differ in architecture
# and not in what they have seen.
TEACHERS = {"resnet50": "resnet50.a2_in1k", "swin": "swin_tiny_patch4_window7_224.ms_in1k"}
TEACHERS |= {"swin_base": "swin_base_patch4_window7_224.ms_in1k"}
# The undistilled weights: the distilled ones have already been taught by a CNN (RegNetY), and are
# had by the start `imagenet_distilled`.
STUDENTS = {f"deit_{s}": f"deit_{s}_patch16_224.fb_in1k" for s in ("tiny", "small", "base")}
CLASS, DISTILLATION = 0, 1
FACES_WEIGHTS = Path("data/weights/faces")
IMAGENET = ("imagenet", "imagenet_distilled")


def build_teacher(name: str, init: str, image_size: int) -> tuple[nn.Module, dict]:
    """Build the teacher `name` with one logit, and describe its start for `params.json`.

    `init`: `scratch` or one of the starts of `read_weights`, from which all but the head comes.
    Raises `StudyError` for weights that cannot be had or do not fit.
    """
    architecture = TEACHERS[name].split(".")[0]
    options = {} if "resnet" in architecture else {"img_size": image_size}
    teacher = timm.create_model(architecture, num_classes=1, **options)
    if init == "scratch":
        return teacher, {"init": init, "architecture": architecture}
    # that start speaks of students; their teachers start as ever
    source = "imagenet" if init in IMAGENET else init
    return teacher, _load(teacher, *read_weights(TEACHERS[name], source))


def build_student(name: str, init: str, image_size: int) -> tuple[nn.Module, dict]:
    """Build the distilled DeiT `name`, with two heads of one logit each; as `build_teacher`.

    Both heads are new. From undistilled weights, which is the rule, the distillation token and its
    position start as the class token's; weights that have such a token bring it.
    """
    source, distilled = STUDENTS[name], STUDENTS[name].replace("_patch", "_distilled_patch")
    student = timm.create_model(distilled.split(".")[0], num_classes=1, img_size=image_size)
    if init == "scratch":
        return student, {"init": init, "architecture": source.split(".")[0]}
    weights, start = read_weights(distilled if init == "imagenet_distilled" else source, init)
    start["distillation_token"] = "from the weights"
    if "dist_token" not in weights and {"cls_token", "pos_embed"} <= set(weights):
        start["distillation_token"] = "copied from the class token"
        weights["dist_token"] = weights["cls_token"].clone()
        place = weights["pos_embed"]  # (1, 1 + patches, D)
        weights["pos_embed"] = torch.cat([place[:, :1], place], dim=1)
    return student, _load(student, weights, start)


BUILD = {"teacher": build_teacher, "student": build_student}


def read_weights(architecture: str, init: str) -> tuple[dict[str, Tensor], dict]:
    """Return the weights that `init` names for a timm architecture, as float32, and their source.

    `init`: `imagenet` or `imagenet_distilled` (from the hub, or timm's cache of it), `faces` (those
    of the repository), a file in a format of timm's, or a folder with one for each architecture,
    e.g. `resnet50.safetensors`. `sha256` is that of a file; `tensors_sha256` is over names, types,
    shapes and values, whatever file they came in. Raises `StudyError` where they cannot be fetched,
    found or read.
    """
    name = architecture.split(".")[0]
    start = {"init": init, "architecture": name}
    path = project_path(FACES_WEIGHTS if init == "faces" else init)
    if path.is_dir() or init == "faces":
        path = path / f"{name}.safetensors"
    try:
        if init in IMAGENET:
            start["architecture"] = architecture
            weights = timm.create_model(architecture, pretrained=True).state_dict()
        else:
            start["file"] = short_path(path)
            start["sha256"] = sha256(path)
            weights = timm.models.load_state_dict(str(path), weights_only=True)
    except Exception as error:
        where, kind = start.get("file", architecture), type(error).__name__
        way = f"set init to timm's {name} in a file or folder, or connect to the hub for imagenet"
        raise StudyError(f"The weights of {where} cannot be had ({kind}): {way}.") from error
    tensors = {key: value for key, value in weights.items() if isinstance(value, Tensor)}
    halves = (torch.float16, torch.bfloat16)
    weights = {k: (v.float() if v.dtype in halves else v).contiguous() for k, v in tensors.items()}
    return weights, start | {"tensors_sha256": hashlib.sha256(save(weights)).hexdigest()}


def _load(model: nn.Module, weights: dict[str, Tensor], start: dict) -> dict:
    """Load `weights` into all of `model` but its heads, and add to `start` what became of them.

    Position embeddings of another image size, and Swin's relative positions of another window, are
    resampled by timm's own filter, which knows the names in its authors' files too. Raises
    `StudyError` where a tensor is missing or of another shape.
    """
    name = start["architecture"].split(".")[0]
    misfit = f"The weights of {start.get('file', start['architecture'])} do not fit {name}"
    new = [key for key in model.state_dict() if is_head(key)]
    fit = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", lambda w, _: w)
    try:
        fitted = fit(weights, model)
        body = {key: value for key, value in fitted.items() if key not in new}
        missing, unused = model.load_state_dict(body, strict=False)
    except Exception as error:  # another architecture's can fail anywhere in timm's conversion
        raise StudyError(f"{misfit}: tensors have other shapes or names.") from error
    if lacking := sorted(set(missing) - set(new)):
        raise StudyError(f"{misfit}: {len(lacking)} tensors are missing, {lacking[0]} among them.")
    unused = sorted([*unused, *(key for key in fitted if key in new)])
    return start | {"loaded": len(fitted) - len(unused), "new": new, "unused": unused}


def is_head(name: str) -> bool:
    """Return whether a tensor of this name belongs to a head: all else has been pretrained."""
    return name.startswith(("fc.", "head"))


def trained(run: Run, device: torch.device) -> nn.Module:
    """Return the network of a finished run on `device`, in evaluation mode.

    Raises `StudyError` for a run without its weights.
    """
    chosen, weights = run.params["parameters"], weights_of(run)
    model, _ = BUILD[run.stage](chosen[run.stage], "scratch", chosen["image_size"])
    model.load_state_dict(load_file(weights))
    return model.to(device, memory_format=torch.channels_last).eval()


def ready(run: Run, device: torch.device) -> nn.Module:
    """Return `trained`, set to compute as it did at the end of the run."""
    model = trained(run, device)
    choose_attention(model, device, precision(device, run.params["parameters"]["amp"]))
    return model


def choose_attention(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Choose how a Transformer that is trained in `dtype` computes its attention on `device`.

    torch's fused attention, except in low precision on a CPU: there its backward pass alone takes
    longer than the same attention written as two matrix products with a softmax between.
    """
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = device.type != "cpu" or dtype == torch.float32


def head_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logit of every head, (N, 1) for a teacher and (N, 2) for a student.

    timm's own forward of a distilled DeiT averages the heads unless told otherwise, in which case
    both losses would act on one output and nothing would pass through the token.
    """
    if not hasattr(model, "head_dist"):
        return model(images)
    tokens = model.forward_features(images)
    return torch.cat([model.head(tokens[:, CLASS]), model.head_dist(tokens[:, DISTILLATION])], 1)


def decides_by(run: Run) -> str:
    """Return which heads decide: `class` (no teacher), `both`, or `distillation` (no labels)."""
    taught = run.params["parameters"].get("distillation", "none") != "none"
    return run.params.get("decides_by", "both" if taught else "class")


def decision_logits(logits: Tensor, decides_by: str) -> Tensor:
    """Return the (N,) logits by which a model decides, of the (N, heads) of `head_logits`.

    A student with labels and a teacher decides by the mean of both heads (Touvron et al. 2021,
    section 4).
    """
    heads = {"class": [CLASS], "distillation": [DISTILLATION], "both": [CLASS, DISTILLATION]}
    return logits[:, heads[decides_by]].mean(dim=1)


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, image_size: int) -> int:
    """Return the multiply-accumulate operations of one image's forward pass."""
    image = torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device)
    counter = FlopCounterMode(display=False)
    # The mathematical form of attention is counted on every device; the fused one is not.
    with torch.inference_mode(), counter, nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        head_logits(model.eval(), image)
    return counter.get_total_flops() // 2


def family(model: nn.Module) -> str:
    """Return `resnet`, `swin` or `deit`; raise `StudyError` for another architecture."""
    for name, part in {"resnet": "layer4", "swin": "layers", "deit": "blocks"}.items():
        if hasattr(model, part):
            return name
    raise StudyError(f"A {type(model).__name__} is neither a ResNet, a Swin nor a DeiT.")


def stages(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that stand for a network's depth, by name, the first one first.

    ResNet: the stem and the four stages. Swin: the four stages. DeiT: the blocks that end each
    quarter of its depth. Raises `StudyError` for another architecture.
    """
    if family(model) == "resnet":
        named = {f"stage {k}": getattr(model, f"layer{k}") for k in range(1, 5)}
        return {"stem": model.maxpool} | named
    if family(model) == "swin":
        return {f"stage {k}": stage for k, stage in enumerate(model.layers, start=1)}
    depth = len(model.blocks)
    return {f"block {k}": model.blocks[k - 1] for k in range(depth // 4, depth + 1, depth // 4)}


@contextmanager
def caught(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what `module` returns, in the order of its calls."""
    outputs: list[Tensor] = []
    hook = module.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        yield outputs
    finally:
        hook.remove()
