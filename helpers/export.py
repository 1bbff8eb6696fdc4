"""A trained network for others: as ONNX files that stand by themselves, and as timm reads it.

python -m helpers.export RUN...

writes `model.onnx` and `model_int8.onnx` into the run's `onnx/`. The graph takes `faces`, (N, 3, S,
S) float32 RGB: aligned and cut as in chapter 2, resized to S × S, and normalised by ImageNet's mean
and standard deviation. It gives `probabilities`, (N, heads) float32: P(pain) by the decision, then
by each head that was trained. The metadata says all of this.

int8 is onnxruntime's static quantisation, its ranges found on training crops: weights int8 with one
scale a channel, activations uint8. The products of attention, which have no weights, and the heads
stay in float32.
"""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime import quantization
from timm.models import save_for_hf
from torch import nn

from helpers import faces, models
from helpers.files import command, replacing, short_path
from helpers.runs import HEADS, Run, read_run
from helpers.stats import THRESHOLD

CALIBRATION, _BATCHES = 128, 8  # training crops
NOTICE = "Not a medical device: P(pain) of a study's network is no measurement of pain."
_LAYERS = ["Conv", "Gemm", "MatMul"]


class Deployed(nn.Module):
    """A run's network, with P(pain) for logits and the decision before the heads."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.network, self.by = models.trained(run, torch.device("cpu")), models.decides_by(run)
        self.heads = np.flatnonzero(run.predictions[list(HEADS)].notna().any()).tolist()

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """Return P(pain), (N, heads), of normalised (N, 3, S, S) views."""
        logits = models.head_logits(self.network, views)
        decision = models.decision_logits(logits, self.by)
        return torch.stack([decision, logits[:, 0], logits[:, -1]], 1)[:, self.heads].sigmoid()


def export_run(run: Run) -> dict[Path, float]:
    """Write the network of `run` as ONNX, and return the largest difference in P(pain) from torch.

    By the path of each file, over the calibration crops. Raises `StudyError` without the run's
    weights or its crops.
    """
    deployed, size, found = Deployed(run).eval(), run.params["parameters"]["image_size"], {}
    images = faces.load_faces(run.params["crops_dir"], size, "train").images
    drawn = np.random.default_rng(0).permutation(len(images))[:CALIBRATION]
    views = faces.plain_view(images[drawn], size)
    about = {"arm": run.name, "seed": run.seed, "threshold": THRESHOLD, "notice": NOTICE}
    normalised = f"in 0..1, less {faces.IMAGENET_MEAN}, over {faces.IMAGENET_STD}"
    about["input"] = f"faces, RGB, N x 3 x {size} x {size}, {normalised}"
    about["output"] = f"P(pain), N x {[list(HEADS)[head] for head in deployed.heads]}"
    names = {"input_names": ["faces"], "output_names": ["probabilities"], "verbose": False}
    free = ({0: torch.export.Dim("faces")},)
    with torch.no_grad():
        expected = deployed(views).numpy()
        model = torch.onnx.export(deployed, (views[:2],), dynamic_shapes=free, **names).model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # where in whose files it was made
    parts = iter([{"faces": part} for part in np.array_split(views.numpy(), _BATCHES)])
    reader = SimpleNamespace(get_next=lambda: next(parts, None))
    kinds = {"activation_type": quantization.QuantType.QUInt8, "per_channel": True}
    kinds |= {"op_types_to_quantize": _LAYERS, "nodes_to_exclude": kept_in_float(model.graph)}
    for path in (run.folder / "onnx" / "model.onnx", run.folder / "onnx" / "model_int8.onnx"):
        with replacing(path) as temporary:
            if found:
                quantization.quantize_static(model, temporary, reader, **kinds)
                model = onnx.load(temporary)
            onnx.helper.set_model_props(model, {key: str(value) for key, value in about.items()})
            onnx.save(model, temporary)
            session = onnxruntime.InferenceSession(temporary)
        found[path] = float(np.abs(session.run(None, {"faces": views.numpy()})[0] - expected).max())
    return found


def save_for_timm(run: Run, folder: Path) -> None:
    """Write the network of `run` so that `timm.create_model("local-dir:<folder>")` decides as it.

    timm averages the two heads of a distilled DeiT. Where one head decides alone it is doubled and
    the other one is set to zero, which is exact: floats double without rounding.
    """
    model, size = models.trained(run, torch.device("cpu")), run.params["parameters"]["image_size"]
    factors = {"class": (2, 0), "distillation": (0, 2)}.get(models.decides_by(run), (1, 1))
    if run.stage == "student":
        for head, factor in zip((model.head, model.head_dist), factors, strict=True):
            for parameter in head.parameters():
                parameter.data *= factor
    model = model.to(memory_format=torch.contiguous_format)
    data = {"input_size": (3, size, size), "crop_pct": 1.0}
    save_for_hf(model, folder, {"label_names": ["Pain"]}, safe_serialization=True, data_config=data)


def kept_in_float(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the layers that are not quantised; see the module."""
    # a head's weights have one output
    weights = {tensor.name for tensor in graph.initializer if min([*tensor.dims, 0][:2]) > 1}
    layers = [node for node in graph.node if node.op_type in _LAYERS]
    return [node.name for node in layers if not weights & set(node.input)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what cannot be exported ends it with one sentence."""
    with command("export", __doc__) as parser:
        parser.add_argument("runs", nargs="+", help="run folders")
        for folder in parser.parse_args(arguments).runs:
            for path, difference in export_run(read_run(Path(folder).absolute())).items():
                print(f"{short_path(path)}: from torch's P(pain) at most {difference:.1e}")


if __name__ == "__main__":
    main()
