"""The card of the weights behind `init: faces`, in data/README.md, from the files beside them.

python -m helpers.pretraining.weights_card    # writes it between its marks, and the curves' figure
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from helpers.errors import StudyError
from helpers.figures import colour_of, label_of, save_fig, use_style
from helpers.files import project_path, read_csv, write_between
from helpers.networks.weights import FACES_WEIGHTS
from helpers.prose import listing, markdown_table, number

START, END = "<!-- weights, by helpers.pretraining.weights_card -->", "<!-- end of weights -->"
FIGURES = "figures"
_NAME = "pretraining"


def read_cards(folder: str | Path = FACES_WEIGHTS) -> list[dict]:
    """Return what `pretraining.pretrain` wrote beside each file of weights, teachers first.

    Raises `StudyError` where there is none.
    """
    found = [json.loads(path.read_text()) for path in sorted(project_path(folder).glob("*.json"))]
    if not found:
        raise StudyError(f"The folder {folder} holds no card of weights.")
    return sorted(found, key=lambda card: ("deit" in card["backbone"], card["backbone"]))


def card(folder: str | Path = FACES_WEIGHTS) -> str:
    """Return the card as Markdown: recipe, held-out errors, the effect of rounding to 16 bits."""
    cards = read_cards(folder)
    first, recipe = cards[0], cards[0]["recipe"]
    sizes = listing(sorted({f"{size}" for each in cards for size, _ in each["stages"]}))
    rows = [
        {
            "backbone": label_of(each["backbone"]),
            "epochs": " + ".join(str(epochs) for _, epochs in each["stages"]),
            "held-out error": number(each["held_out_error"], 4),
            "in 16 bits": number(each["held_out_error_16_bit"], 4),
            "best, worst action": _extremes(each["held_out_errors"]),
            "sha256": f"`{each['sha256'][:12]}`",
        }
        for each in cards
    ]
    return "\n\n".join(
        [
            f"{first['faces']['train']:,} faces to train on, {first['faces']['held_out']:,} of "
            f"other people held out; {len(first['held_out_errors'])} facial actions, standardised, "
            f"so an error of 1 is saying the mean. {recipe['optimizer']}, learning rate "
            f"{recipe['learning_rate']}, batches of {recipe['batch_size']}, {recipe['schedule']}, "
            f"{sizes} pixels, seed {recipe['seed']}, {recipe['precision']}.",
            markdown_table(pd.DataFrame(rows)),
            f"![Held-out error by epoch](../{FIGURES}/{_NAME}.png)",
        ]
    )


def _extremes(errors: dict[str, float]) -> str:
    best, worst = min(errors, key=errors.get), max(errors, key=errors.get)
    return f"{best} {number(errors[best])}, {worst} {number(errors[worst])}"


def curves(folder: str | Path = FACES_WEIGHTS) -> plt.Figure:
    """Draw the held-out error of each backbone by epoch; the dotted line is saying the mean."""
    fig, ax = plt.subplots(figsize=(7.2, 3.6))
    ax.axhline(1, color="#888888", linewidth=1, linestyle=":")
    for each in read_cards(folder):
        history = read_csv(project_path(folder) / f"{each['architecture']}.csv")
        epochs = range(1, len(history) + 1)
        arm = each["backbone"]
        colour = colour_of(arm if "deit" not in arm else f"{arm}-none")
        ax.plot(epochs, history["held_out_loss"], color=colour, marker="o", markersize=3)
        ax.annotate(
            label_of(arm),
            (len(history), history["held_out_loss"].iloc[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            va="center",
        )
    ax.set(xlabel="epoch", ylabel="held-out error of the actions", ylim=(0, None))
    ax.margins(x=0.12)
    return fig


def main() -> None:
    """Write the card into data/README.md, and the figure."""
    use_style()
    save_fig(curves(), FIGURES, _NAME)
    write_between("data/README.md", START, END, card())


if __name__ == "__main__":
    main()
