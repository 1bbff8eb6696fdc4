"""A small study with weights, tables and a figure, for the tests of releases."""

import json
import zlib

import numpy as np
import pandas as pd
import torch
import yaml
from made_runs import make_run
from PIL import Image
from safetensors.torch import save_file
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from helpers.evaluation.ablation_tables import compare_ablations
from helpers.evaluation.compare import load_runs
from helpers.evaluation.kept import kept_table
from helpers.evaluation.tables import evaluate, write_tables
from helpers.files import ROOT, sha256
from helpers.parameters import RECIPE
from helpers.training.faces import load_faces
from helpers.training.inference import predict
from helpers.training.runs import provenance

NAME, SIZE = "tiny", 32
TAUGHT = "student/deit_tiny-resnet50/seed0"
ABLATED = "ablations/soft/student/deit_tiny-resnet50/seed0"
_CHANGED = {"image_size": SIZE, "amp": False, "teachers": ["resnet50"], "students": ["deit_tiny"]}
_CHANGED |= {"seeds": [0, 1], "bootstrap_samples": 50, "init": "scratch"}
_SMALL = {"num_classes": 1, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}


def small_teacher(name, init, image_size):
    """Stand in for `models.build_teacher`."""
    return VisionTransformer(img_size=image_size, **_SMALL), {"init": init}


def small_student(name, init, image_size):
    """Stand in for `models.build_student`."""
    return VisionTransformerDistilled(img_size=image_size, **_SMALL), {"init": init}


def make_crops(folder):
    """Write noise as crops of 60 people in all groups, 44 of them to test on; return `folder`."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for person in range(60):
        identity = f"1{person % 2}{person // 2 % 2}{person // 4 % 2}{person % 5}{person:05d}"
        split = "train" if person < 8 else "validation" if person < 16 else "test"
        for side in ("left", "right"):
            name = f"{identity}_{side}"
            pixels = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((40, 40)).save(folder / f"{name}.png")
            label = "Pain" if person % 2 and side == "right" else "NoPain"
            rows.append((name, f"{name}.png", identity, side, label, split, 40))
    columns = "image_id path identity side label split width".split()
    pd.DataFrame(rows, columns=columns).to_csv(folder / "manifest.csv", index=False)
    return folder


def make_study(root, crops_dir):
    """Write config, runs, results and figures below `root`, and return the config's path."""
    config = yaml.safe_load((ROOT / "config/standin.yaml").read_text()) | _CHANGED
    path = root / f"config/{NAME}.yaml"
    (path.parent / "ablations").mkdir(parents=True)
    path.write_text(yaml.safe_dump(config))
    (path.parent / "ablations/soft.yaml").write_text("distillation: soft\n")
    runs = root / "runs" / NAME
    for seed in config["seeds"]:
        teacher = write_run(runs, "resnet50", seed, crops_dir, config)
        write_run(runs, "deit_tiny-none", seed, crops_dir, config)
        write_run(runs, "deit_tiny-resnet50", seed, crops_dir, config, teacher)
    teacher = runs / "teacher/resnet50/seed0"
    changed = config | {"distillation": "soft"}
    write_run(runs / "ablations/soft", "deit_tiny-resnet50", 0, crops_dir, changed, teacher)
    make_tables(root, config)
    figure = root / f"figures/{NAME}/auroc.png"
    figure.parent.mkdir(parents=True)
    figure.write_bytes(b"\x89PNG")
    return path


def make_tables(root, config):
    """Write what chapter 5 writes of the runs."""
    runs, results = root / "runs" / NAME, root / "results" / NAME
    study = evaluate(load_runs(runs), config["bootstrap_samples"], config["bootstrap_seed"])
    write_tables(study, results)
    compare_ablations(study, runs, results, config["bootstrap_samples"], 0)
    kept_table(results / "cka.csv.gz", study.runs, lambda: study.tables["metrics"])


def write_run(root, arm, seed, crops_dir, config, teacher=None):
    """Write the run of a network that nobody trained, and return its folder."""
    stage = "student" if "-" in arm else "teacher"
    torch.manual_seed(zlib.crc32(f"{root.name} {arm} {seed}".encode()))
    network, _ = (small_student if stage == "student" else small_teacher)("", "scratch", SIZE)
    faces = load_faces(crops_dir, SIZE)
    heads = [network.head, network.head_dist] if stage == "student" else [network.head]
    with torch.no_grad():  # else every face gets much the same answer
        for head in heads:
            head.weight.normal_()
        middle = predict(network, faces.images, SIZE, torch.float32).median(dim=0).values
        for head, value in zip(heads, middle, strict=True):
            head.bias -= value
    logits = predict(network, faces.images, SIZE, torch.float32).double().numpy()
    chosen = {name: config[name] for name in RECIPE if name != "device"} | {"seed": seed}
    chosen |= {"epochs": config[f"{stage}_epochs"]}
    if stage == "student":
        chosen |= {"student": "deit_tiny", "teacher": arm.rpartition("-")[2]}
        chosen |= {"distillation": config["distillation"] if teacher else "none"}
    params = {"crops_dir": str(crops_dir), "crops_sha256": faces.manifest_sha256}
    params |= {"parameters": chosen, "precision": "float32"} | provenance(torch.device("cpu"))
    if teacher:
        params["teacher_sha256"] = sha256(teacher / "model.safetensors")
    make_run(root, arm, seed, faces.table, [logits[:, 0], logits[:, -1]], **params)
    folder = root / stage / arm / f"seed{seed}"
    save_file(network.state_dict(), folder / "model.safetensors")
    return folder


def change_json(path, **values):
    """Set entries of a JSON file; a dict goes into the one that is there."""
    content = json.loads(path.read_text())
    for key, value in values.items():
        content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
    path.write_text(json.dumps(content))
