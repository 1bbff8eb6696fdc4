"""What one run says, in tables and sentences, for notebooks 03 and 04."""

import pandas as pd

from helpers.bootstrap import Estimate
from helpers.evaluation.compare import HEADS, Panel, make_panel
from helpers.figures import LABELS, label_of, teacher_of
from helpers.metrics import CONTRASTS
from helpers.prose import CHANCE, chance, markdown_table, number, percent, with_interval
from helpers.training.runs import Run

SAMPLES, SAMPLES_SEED = 2000, 0
_STARTS = {
    "imagenet": "ImageNet-1k weights",
    "imagenet_distilled": "ImageNet-1k weights that a CNN (RegNetY) had taught",
    "faces": "weights that regressed facial actions",
    "scratch": "random weights (from scratch)",
}
_SHOWN = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy", "f1": "F1"}


def describe_start(run: Run) -> str:
    """Return the kind of weights that a run started from, in words."""
    start = run.params["initialisation"]
    if "folder" in start:
        return f"the weights in the folder {start['folder']}"
    return _STARTS.get(start["init"], f"the file {start.get('file', start['init'])}")


def facts(run: Run) -> str:
    """Return what was run, on what and at what cost, as a Markdown table."""
    chosen, metrics = run.params["parameters"], run.metrics
    clip = "" if chosen["clip_norm"] is None else f", gradients clipped at {chosen['clip_norm']:g}"
    rows = {
        "start": describe_start(run),
        "recipe": f"{chosen['optimizer'].capitalize()}, {chosen['learning_rate']:g}, schedule "
        f"{chosen['schedule']}, batch {chosen['batch_size']}, {chosen['image_size']} px{clip}",
        "seed": chosen["seed"],
        "epochs": f"{metrics['epochs']}, of which epoch {metrics['best_epoch']} was kept",
        "parameters": f"{metrics['parameters'] / 1e6:.1f} million",
        "multiply-adds": f"{metrics['macs'] / 1e9:.2f} G an image",
        "training time": f"{metrics['train_seconds'] / 60:.1f} min, "
        f"{metrics['images_per_second']:.0f} images/s",
        "precision": run.params["precision"],
        "device": run.params["device"],
        "torch, timm": f"{run.params['versions']['torch']}, {run.params['versions']['timm']}",
        "code": run.params["git_commit"],
    }
    table = pd.DataFrame({label_of(run.name): list(rows), " ": list(rows.values())})
    return markdown_table(table).replace("---:|", ":---|")


def score_table(run: Run, split: str = "test") -> str:
    """Return AUROC, balanced accuracy and F1 with intervals, by head and contrast, as Markdown."""
    panel = make_panel([run], SAMPLES, SAMPLES_SEED, split)
    rows = []
    for head in _heads(run):
        for contrast, name in CONTRASTS.items():
            found = panel.estimates(run.name, contrast, head)
            scores = {title: with_interval(found[key]) for key, title in _SHOWN.items()}
            used = panel.rows(contrast)
            faces = f"{int(panel.positive[used].sum())} / {int((~panel.positive[used]).sum())}"
            rows.append({"contrast": name, "pain / other faces": faces, **scores})
            if len(_heads(run)) > 1:
                rows[-1] = {"head": HEADS[head], **rows[-1]}
    return markdown_table(pd.DataFrame(rows))


def verdict(run: Run, split: str = "test") -> str:
    """Return whether the run is above chance, for every pain-contrast, in one paragraph."""
    panel = make_panel([run], SAMPLES, SAMPLES_SEED, split)
    area = panel.estimates(run.name, "all")["auroc"]
    hard = panel.estimates(run.name, "expressive")["auroc"]
    accuracy = panel.estimates(run.name, "all")["accuracy"]
    never = 1 - panel.positive.mean()
    return (
        f"**On the {split} faces {label_of(run.name)} {_is(area)}**: AUROC {with_interval(area)}. "
        f"Against other expressions alone it {_is(hard)}: {with_interval(hard)}. Its accuracy is "
        f"{with_interval(accuracy)}, where always saying no-pain would give {number(never)}: "
        "accuracy alone says little here."
    )


def read_curves(run: Run) -> str:
    """Return what the learning curves show, in one paragraph of numbers from the history."""
    history, metrics = run.history, run.metrics
    kept = history.set_index("epoch").loc[metrics["best_epoch"]]
    first, last = history.iloc[0], history.iloc[-1]
    text = (
        f"The training loss went from {number(first['train_loss'], 3)} to "
        f"{number(last['train_loss'], 3)}; the AUROC on validation is "
        f"{number(kept['validation_auroc'])} at epoch {metrics['best_epoch']} of "
        f"{metrics['epochs']}, whose weights were kept"
    )
    if metrics["best_epoch"] == metrics["epochs"] > 1:
        text += " (the last one: a longer training might go further)"
    taught = history["teacher_disagreement"].dropna()
    if len(taught):
        text += (
            f". The teacher contradicted the label on {percent(taught.mean(), 1)} of the training "
            "views: so often its word was something else than the label once more"
        )
    return text + "."


def close_teacher(run: Run) -> str:
    """Return the last words of notebook 03."""
    state = chance(_area(run))
    hands_on = {
        "above": "It has something to hand on.",
        "below": "It orders faces the wrong way round; a student can only be misled by it.",
        "level": "Whether it has anything to hand on, this test cannot tell: its students are "
        "taught by labels that may be little better than a coin.",
    }.get(state, "There are too few faces to say whether it has anything to hand on.")
    return (
        f"{label_of(run.name)}, trained from {describe_start(run)}, {_is(_area(run))} on people "
        f"that it has not seen. {hands_on} Chapter 4 lets it teach."
    )


def close_student(run: Run) -> str:
    """Return the last words of notebook 04."""
    teacher = teacher_of(run.name)
    by = "without a teacher" if teacher == "none" else f"taught by {LABELS[teacher]}"
    return (
        f"The student {by} {_is(_area(run))} on people that it has not seen. One run "
        "by itself says nothing of what the teacher was worth: chapter 5 sets the arms side by "
        "side, on the same faces."
    )


def _is(estimate: Estimate) -> str:
    state = chance(estimate)
    if state in ("unknown", "undefined"):
        return "has too few test faces for a verdict"
    return f"is {CHANCE[state]}"


def _area(run: Run) -> Estimate:
    panel: Panel = make_panel([run], SAMPLES, SAMPLES_SEED)
    return panel.estimates(run.name, "all")["auroc"]


def _heads(run: Run) -> list[str]:
    """The columns of predictions that hold something and are not the decision over again."""
    if run.predictions["probability_distillation"].notna().any():
        return list(HEADS)
    return ["probability"]
