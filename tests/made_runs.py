"""Made-up run folders with known qualities, for the tests of the comparison."""

import json

import numpy as np
import pandas as pd

ARMS = ("resnet50", "swin", "deit_tiny-none", "deit_tiny-resnet50", "deit_tiny-swin")
SKILL = {"resnet50": 3.0, "swin": 2.0, "none": 1.0}


def made_faces(people, pain=None, seed=0):
    """Both faces of `people` test identities and of six training ones; `pain`: who feels it."""
    rng = np.random.default_rng(seed)
    rows = []
    for person in range(people + 6):
        split = "test" if person < people else "train"
        hurts = bool(rng.integers(2)) if pain is None or split == "train" else person in pain
        identity = f"1{int(hurts)}{person % 2}{person // 2 % 2}{person % 5}{person:05d}"
        for side in ("left", "right"):
            label = "Pain" if hurts and side == "right" else "NoPain"
            rows.append((f"{identity}_{side}", identity, side, split, label))
    return pd.DataFrame(rows, columns=["image_id", "identity", "side", "split", "label"])


def make_runs(folder, people=40, seeds=(0,), arms=ARMS, pain=None, skill=SKILL, **params):
    """Write a run folder for each arm and seed, and return `folder`."""
    faces = made_faces(people, pain)
    positive = (faces["label"] == "Pain").to_numpy()
    for place, arm in enumerate(arms):
        for seed in seeds:
            rng = np.random.default_rng([seed, place])
            level = skill[arm.rpartition("-")[2]]
            heads = [level * (positive - 0.5) + rng.normal(size=len(faces)) for _ in range(2)]
            make_run(folder, arm, seed, faces, heads, **params)
    return folder


def make_run(root, arm, seed, faces, logits, **params):
    """Write one run folder; `logits` are those of the class and the distillation head."""
    student, distilled = "-" in arm, "-" in arm and not arm.endswith("-none")
    stage = "student" if student else "teacher"
    folder = root / stage / arm / f"seed{seed}"
    folder.mkdir(parents=True)
    chances = [1 / (1 + np.exp(-z)) for z in (*logits, (logits[0] + logits[1]) / 2)]
    faces.assign(
        probability=chances[2] if distilled else chances[0],
        probability_class=chances[0] if student else np.nan,
        probability_distillation=chances[1] if distilled else np.nan,
    ).to_csv(folder / "predictions.csv", index=False)
    history = pd.DataFrame({"epoch": [1, 2, 3, 4], "validation_auroc": [0.5, 0.7, 0.79, 0.8]})
    for column in (
        *("learning_rate", "seconds", "images_per_second", "train_loss", "train_loss_class"),
        *("train_loss_distillation", "validation_loss", "validation_accuracy"),
    ):
        history[column] = 0.5
    history["teacher_disagreement"] = 0.1 if distilled else np.nan
    history.to_csv(folder / "history.csv", index=False)
    metrics = {"best_epoch": 4, "epochs": 4, "train_seconds": 10.0, "images_per_second": 50.0}
    metrics |= {"parameters": 5_500_000 if student else 23_500_000, "latency_ms": 9.0}
    metrics |= {"macs": 300_000_000 if student else 1_000_000_000, "image_size": 112}
    write(folder / "metrics.json", metrics)
    chosen = {"seed": seed, "optimizer": "adam", "learning_rate": 1e-4, "batch_size": 8}
    chosen |= {"schedule": "one_cycle", "image_size": 112, "clip_norm": 1.0}
    chosen |= {"distillation": "hard" if distilled else "none"}
    content = {"stage": stage, "name": arm, "parameters": chosen, "device": "cpu"}
    content |= {"crops_dir": "data/crops/quick", "crops_sha256": "00"}
    content |= {"initialisation": {"init": "scratch"}}
    write(folder / "params.json", content | params)
    (folder / "model.safetensors").touch()


def write(path, content):
    """Write a JSON file."""
    path.write_text(json.dumps(content))
