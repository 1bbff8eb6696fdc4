"""How one run went, as figures: its learning curves and its scores, for notebooks 03 and 04."""

import matplotlib.pyplot as plt
import pandas as pd

from helpers.figures import COLOURS, INK, MUTED, colour_of, label_of
from helpers.training.runs import Run


def plot_losses(run: Run, ax: plt.Axes) -> plt.Axes:
    """Draw the training loss, its parts where there are two, and the validation loss by epoch."""
    history, colour = run.history, colour_of(run.name)
    lines = [("train_loss", "training", colour, "-")]
    if history["train_loss_distillation"].notna().any():
        lines += [
            ("train_loss_class", "  of which class token", colour, "--"),
            ("train_loss_distillation", "  of which distillation token", colour, ":"),
        ]
    lines.append(("validation_loss", "validation (labels)", INK, "-"))
    for column, name, shade, style in lines:
        ax.plot(history["epoch"], history[column], style, marker=".", color=shade, label=name)
    ax.set(xlabel="epoch", ylabel="binary cross-entropy", title="Loss")
    ax.legend()
    return _whole_epochs(ax)


def plot_validation(run: Run, ax: plt.Axes) -> plt.Axes:
    """Draw the AUROC on validation by epoch, chance, and the epoch whose weights were kept."""
    history, best = run.history, run.metrics["best_epoch"]
    ax.plot(history["epoch"], history["validation_auroc"], marker=".", color=colour_of(run.name))
    ax.axhline(0.5, color=MUTED, linewidth=1, linestyle=":")
    ax.annotate(
        "chance", (1, 0.5), (0, 4), xycoords=("axes fraction", "data"), ha="right",
        textcoords="offset points", color=MUTED, fontsize=9,
    )  # fmt: skip
    kept = history.loc[history["epoch"] == best, "validation_auroc"]
    if kept.notna().any():
        ax.plot(best, kept.item(), "o", color=colour_of(run.name))
        ax.annotate(
            "kept", (best, kept.item()), (0, 7), textcoords="offset points", ha="center", fontsize=9
        )
    ax.set(xlabel="epoch", ylabel="AUROC", title="Validation")
    return _whole_epochs(ax)


def plot_disagreement(run: Run, ax: plt.Axes) -> plt.Axes:
    """Draw how often the teacher contradicted the labels on the student's own training views."""
    history = run.history
    ax.plot(history["epoch"], 100 * history["teacher_disagreement"], color=colour_of(run.name))
    ax.set(xlabel="epoch", ylabel="% of training views", title="Teacher ≠ label")
    ax.set_ylim(bottom=0)
    return _whole_epochs(ax)


def plot_scores(run: Run, ax: plt.Axes, split: str = "test") -> plt.Axes:
    """Draw P(pain) of every face of a split in three groups: neutral, expressive no-pain, pain."""
    faces = run.predictions[run.predictions["split"] == split]
    groups = {
        "neutral half": faces[faces["side"] == "left"],
        "expressive, no pain": faces[(faces["side"] == "right") & (faces["label"] == "NoPain")],
        "pain": faces[faces["label"] == "Pain"],
    }
    for place, (name, group) in enumerate(groups.items()):
        # A fixed spread, so that the picture is the same each time.
        height = place + 0.32 * ((pd.RangeIndex(len(group)) * 0.618034 % 1) - 0.5)
        colour = colour_of(run.name) if name == "pain" else COLOURS["none"]
        ax.plot(group["probability"], height, "o", color=colour, alpha=0.55, markersize=4, mew=0)
    ax.axvline(0.5, color=MUTED, linewidth=1, linestyle=":")
    ax.set_yticks(range(len(groups)), [f"{name}\n(n = {len(g)})" for name, g in groups.items()])
    ax.set(xlim=(-0.02, 1.02), xlabel="P(pain)", title=f"{label_of(run.name)} on the {split} faces")
    return ax


def _whole_epochs(ax: plt.Axes) -> plt.Axes:
    ax.xaxis.get_major_locator().set_params(integer=True)
    return ax
