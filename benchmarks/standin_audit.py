"""Audit the bundled pairs: faces found, shortcuts, difficulty, pain as a dose.

    python benchmarks/standin_audit.py

reads `data/standin` and what notebooks 01 and 02 made of it (`make report` does). It writes tables
to `results/standin_audit/`, a figure, and the part of the data card between its two marks. It takes
about twenty minutes on one core, most of it for the network that is trained once for each of five
folds; a fold that is done is not repeated.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from helpers import figures
from helpers.cropping.probes import folds_of
from helpers.cropping.shortcuts import probe_pairs, read_pictures
from helpers.cropping.small_net import train_small_net
from helpers.dataset.naming import CELL
from helpers.files import project_path, read_csv, replacing, sha256, write_between, write_csv
from helpers.metrics import is_pain

_NET_SIZE = (96, 96)
_EPOCHS = 25
_PSPI_EDGES = (0, 3, 5, 7, 9, 11, 13, 16.1)
_SAMPLES = 2000
_MARK_BEGIN, _MARK_END = "<!-- audit -->", "<!-- end of audit -->"


def read_faces(crops_dir: Path, attributes: Path) -> pd.DataFrame:
    """Return the crops' manifest with `kind` and `pspi` of every face."""
    faces = read_csv(crops_dir / "manifest.csv")
    made = read_csv(attributes)[["image_id", "kind", "pspi"]]
    return faces.merge(made, on="image_id", validate="one_to_one")


def pain_probabilities(faces: pd.DataFrame, crops_dir: Path, cache: Path) -> np.ndarray:
    """Return P(pain) of every face by a small network that never saw its person, (N,).

    Neutral halves count half, so that both classes weigh about the same.
    """
    pain = is_pain(faces)
    cells = faces[list(CELL)].astype(str).agg(" ".join, axis=1)
    weights = np.where(faces["side"] == "left", 0.5, 1.0)
    images = read_pictures(crops_dir, faces["path"], _NET_SIZE)
    probability = np.empty(len(faces))
    folds = folds_of(pain, faces["identity"], cells, seed=0)
    key = sha256(crops_dir / "manifest.csv")[:12]
    for number, (train, test) in enumerate(tqdm(folds, desc="Folds", unit="fold")):
        path = cache / f"{key}-fold{number}.npy"
        if not path.is_file():
            score = train_small_net(images[train], pain[train], _EPOCHS, weights=weights[train])
            with replacing(path) as temporary:
                np.save(temporary, score(images[test]))
        probability[test] = np.load(path)
    return probability


def difficulty(faces: pd.DataFrame, probability: np.ndarray) -> pd.DataFrame:
    """Return accuracy and mean P(pain) by kind of expression, and over all expressive halves."""
    pain = is_pain(faces)
    table = faces.assign(right=(probability > 0.5) == pain, probability=probability)
    expressive = table[table["side"] == "right"]
    groups = {"all expressive halves": expressive, **dict(list(table.groupby("kind")))}
    return pd.DataFrame(
        {
            "kind": name,
            "faces": len(rows),
            "accuracy": rows["right"].mean(),
            "mean_probability": rows["probability"].mean(),
            "mean_pspi": rows["pspi"].mean(),
        }
        for name, rows in groups.items()
    )


def dose(faces: pd.DataFrame, probability: np.ndarray) -> pd.DataFrame:
    """Return the mean P(pain) of expressive halves by PSPI, Pain and NoPain apart."""
    expressive = (faces["side"] == "right").to_numpy()
    rows = faces[expressive].assign(probability=probability[expressive])
    rows["pspi_from"] = pd.cut(rows["pspi"], _PSPI_EDGES, right=False, labels=_PSPI_EDGES[:-1])
    grouped = rows.groupby(["label", "pspi_from"], observed=True)["probability"]
    return grouped.agg(faces="size", mean_probability="mean").reset_index()


def card(tables: dict[str, pd.DataFrame]) -> str:
    """Return the audit as the data card tells it, in Markdown."""
    facts = dict(tables["facts"].to_numpy())
    kinds = tables["difficulty"].set_index("kind")["accuracy"]
    lines = ["| probe | what learns | AUROC for Pain pairs [95 %] |", "|---|---|---|"]
    learners = {"logistic": "logistic regression", "network": "small network"}
    for row in tables["probes"].itertuples():
        interval = f"{row.estimate:.3f} [{row.low:.3f}, {row.high:.3f}]"
        lines.append(f"| {row.probe} | {learners[row.learner]} | {interval} |")
    ordered = kinds.drop(["all expressive halves", "neutral"]).sort_values()
    words = ", ".join(f"{kind} {share:.2f}" for kind, share in ordered.items())
    return "\n".join(
        [
            f"MTCNN finds {facts['faces detected']:.0f} of {facts['faces']:.0f} halves. What "
            "should not tell a Pain pair from a NoPain pair, tested on people that the probe was "
            "not trained on:",
            "",
            *lines,
            "",
            "How hard the faces are: a network of 0.4 million parameters, trained on other "
            f"people’s crops, is right on {kinds['all expressive halves']:.3f} of the "
            f"expressive halves (AUROC {facts['AUROC, expressive halves']:.3f}). By kind: {words}.",
            "",
            "Its P(pain) rises with PSPI: rank correlation "
            f"{facts['Spearman P(pain) and PSPI, expressive halves']:.2f} over all expressive "
            f"halves, {facts['Spearman P(pain) and PSPI, Pain halves']:.2f} among the Pain halves.",
            "",
            "![AUROC of the probes, and mean P(pain) by PSPI](../figures/standin_audit/audit.png)",
        ]
    )


def draw(tables: dict[str, pd.DataFrame]) -> plt.Figure:
    """Draw the probes' intervals and P(pain) by PSPI."""
    figures.use_style()
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    probes = tables["probes"]
    for y, row in enumerate(probes.itertuples()):
        colour = figures.COLOURS["resnet50" if row.learner == "logistic" else "swin"]
        left.plot([row.low, row.high], [y, y], color=colour)
        left.plot(row.estimate, y, "o" if row.learner == "logistic" else "s", color=colour)
    left.axvline(0.5, color=figures.MUTED, linewidth=1)
    names = [f"{row.probe}, {row.learner}" for row in probes.itertuples()]
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set(
        xlim=(0.4, 0.6),
        xticks=[0.4, 0.45, 0.5, 0.55, 0.6],
        xlabel="AUROC for Pain pairs",
        title="Shortcuts",
    )
    for label, rows in tables["dose"].groupby("label"):
        colour = figures.COLOURS["swin" if label == "Pain" else "none"]
        right.plot(rows["pspi_from"], rows["mean_probability"], "o-", color=colour)
        last = rows.iloc[-1]
        right.annotate(
            label,
            (last["pspi_from"], last["mean_probability"]),
            xytext=(6, 4),
            textcoords="offset points",
            color=colour,
        )
    right.set(ylim=(0, 1.05), xlim=(-0.5, 15), title="Pain as a dose")
    right.set(xlabel="PSPI, from", ylabel="mean P(pain), expressive halves")
    return fig


def main() -> None:
    """Run the audit; write its tables, the figure and the data card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--standin", default="data/standin")
    parser.add_argument("--prepared", default="data/prepared/quick")
    parser.add_argument("--crops", default="data/crops/quick")
    parser.add_argument("--out", default="results/standin_audit")
    options = parser.parse_args()
    standin, crops, out = (project_path(p) for p in (options.standin, options.crops, options.out))
    faces = read_faces(crops, standin / "attributes.csv")
    probability = pain_probabilities(faces, crops, project_path("data/crops/.audit"))
    probes = probe_pairs(options.prepared, standin / "pairs", _SAMPLES)

    pain, expressive = is_pain(faces), (faces["side"] == "right").to_numpy()
    painful = expressive & pain
    facts = {
        "faces": len(faces),
        "faces detected": int(faces["detected"].sum()),
        "AUROC, all faces": roc_auc_score(pain, probability),
        "AUROC, expressive halves": roc_auc_score(pain[expressive], probability[expressive]),
        "Spearman P(pain) and PSPI, expressive halves": spearmanr(
            faces["pspi"][expressive], probability[expressive]
        ).statistic,
        "Spearman P(pain) and PSPI, Pain halves": spearmanr(
            faces["pspi"][painful], probability[painful]
        ).statistic,
    }
    tables = {
        "facts": pd.DataFrame({"fact": facts.keys(), "value": facts.values()}),
        "probes": probes,
        "difficulty": difficulty(faces, probability),
        "dose": dose(faces, probability),
    }
    for name, table in tables.items():
        write_csv(out / f"{name}.csv", table.round(4))
        print(f"\n{name}\n{table.round(3).to_string(index=False)}")
    figures.save_fig(draw(tables), "figures/standin_audit", "audit")
    write_between("data/README.md", _MARK_BEGIN, _MARK_END, card(tables))


if __name__ == "__main__":
    main()
