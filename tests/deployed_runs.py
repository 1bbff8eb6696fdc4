"""A run folder as training leaves it, of a student that nobody trained."""

from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save_file

from helpers.devices import precision
from helpers.networks.models import build_student, choose_attention, count_macs, count_parameters
from helpers.training.engine import contiguous_state
from helpers.training.experiments import tabulate_predictions
from helpers.training.faces import load_faces
from helpers.training.inference import predict
from helpers.training.runs import write_run

SIZE = 32
CPU = torch.device("cpu")


def write_student(folder: Path, crops_dir: Path, amp: bool, seed: int = 0) -> Path:
    """Write the run folder of a distilled student that scores `crops_dir` as `experiments` does."""
    torch.manual_seed(seed)
    network, start = build_student("deit_tiny", "scratch", SIZE)
    with torch.no_grad():  # else every face gets much the same answer
        for head in (network.head, network.head_dist):
            head.weight.normal_(0, 0.5)
            head.bias.normal_(0, 0.5)
    network.to(memory_format=torch.channels_last)
    dtype = precision(CPU, amp)
    choose_attention(network, CPU, dtype)
    faces = load_faces(crops_dir, SIZE)
    # as among the many faces of a real run: a batch of a few is rounded otherwise in bfloat16
    many = faces.images.repeat(1 + 63 // len(faces.images), 1, 1, 1)[:64]
    logits = predict(network, many, SIZE, dtype)[: len(faces.images)]
    predictions = tabulate_predictions(faces, logits, True)
    chosen = {"student": "deit_tiny", "teacher": "swin", "distillation": "hard", "seed": seed}
    chosen |= {"image_size": SIZE, "amp": amp}
    params = {"stage": "student", "name": "deit_tiny-swin", "parameters": chosen}
    params |= {"crops_dir": str(crops_dir), "crops_sha256": faces.manifest_sha256}
    params |= {"precision": str(dtype).removeprefix("torch."), "device": "cpu (of a test)"}
    params |= {"initialisation": start}
    metrics = {"parameters": count_parameters(network), "macs": count_macs(network, SIZE)}
    folder.mkdir(parents=True)
    save_file(contiguous_state(network), folder / "model.safetensors")
    write_run(
        folder, params, pd.DataFrame({"epoch": [1]}), predictions, metrics | {"image_size": SIZE}
    )
    return folder
