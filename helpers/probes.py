"""Shortcuts: how much of a label can be told from what shows no face.

A probe is a logistic regression that sees one thing only (a background, a file's size) and is
tested on people that it was not trained on. Its AUROC is 0.5 where that thing says nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import files, stats

FOLDS = 5
# Thumbnails have more columns than there are people: a weak fit without this much shrinkage.
_SHRINKAGE = 0.01
# The upper corners of a picture, as shares of height and width: wall only, beside the head.
_CORNER = (0.32, 0.15)
_EDGE = 3  # columns at the seam's side, of a half brought to 80 × 92 pixels


def folds_of(
    positive: np.ndarray, identities: Sequence[str], strata: Sequence[str], seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return training and test rows of each fold: no person in both, stratified.

    By `positive` and `strata`; by `positive` alone where a stratum has fewer rows than folds.
    """
    finer = pd.Series(positive).astype(str) + np.asarray(strata)
    words = finer if finer.value_counts().min() >= FOLDS else positive
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    return list(splitter.split(words, words, identities))


def probe(
    features: np.ndarray, positive: np.ndarray, folds: list, weights: np.ndarray
) -> stats.Estimate:
    """Return the AUROC of a probe, out of fold, with its interval over people.

    `features`: (faces, ...), what it sees. `positive`: bool, (faces,), what it is to tell. `folds`:
    of `folds_of`. `weights`: of `stats.identity_weights`. Scores are ranks within their fold, since
    the folds' probes have no common scale.
    """
    features = features.reshape(len(features), -1).astype(float)
    scores = np.empty(len(positive))
    for train, test in folds:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=_SHRINKAGE, max_iter=2000))
        model.fit(features[train], positive[train])
        scores[test] = pd.Series(model.decision_function(features[test])).rank(pct=True)
    value = stats.measure_auroc(positive, scores)["auroc"].item()
    draws = stats.measure_auroc(positive, scores, weights)["auroc"].to_numpy()
    return stats.Estimate(value, draws, ())


def probe_faces(
    prepared_dir: str | Path, crops_dir: str | Path, samples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Probe for the label of a face what shows no face: in its source, and in its crop.

    The source is the file of the pair (its side, format, size and seam, as chapter 1 noted them)
    and the prepared half (brightness, background); the crop is what the networks see, and its file.
    Each is asked twice: Pain against every other face, and among the expressive halves alone, where
    the side, which the labelling rule itself ties to the label, says nothing.

    Returns one row a probe: `shortcut`, `where` (source or crop), `contrast` (all or expressive),
    `faces`, `estimate`, `low`, `high` of the AUROC; NaN with fewer people than folds in a class.
    """
    folder = files.existing_folder(prepared_dir, "prepared faces of chapter 1")
    crops_folder = files.existing_folder(crops_dir, "cropped faces of chapter 2")
    faces = files.read_csv(folder / "manifest.csv")
    crops = files.read_csv(crops_folder / "manifest.csv").set_index("image_id")
    features_of = _features(folder, crops_folder, faces, crops.loc[faces["image_id"], "path"])
    pain, people = stats.is_pain(faces), faces["identity"].to_numpy()
    cells = faces[["gender", "age", "ethnicity"]].astype(str).agg(" ".join, axis=1).to_numpy()
    rows = []
    for contrast in ("all", "expressive"):
        mask = stats.contrast_mask(faces, contrast)
        enough = stats.enough_identities("auroc", people[mask], pain[mask])
        folds = folds_of(pain[mask], people[mask], cells[mask], seed) if enough else None
        weights = stats.identity_weights(people[mask], samples, seed)
        for (shortcut, where), features in features_of.items():
            if (shortcut, contrast) == ("side", "expressive"):
                continue
            row = {"shortcut": shortcut, "where": where, "contrast": contrast, "faces": mask.sum()}
            found = probe(features[mask], pain[mask], folds, weights).row() if enough else {}
            rows.append(row | found)
    return pd.DataFrame(rows, columns=[*row, "estimate", "low", "high"])


def _features(
    folder: Path, crops_folder: Path, faces: pd.DataFrame, paths: pd.Series
) -> dict[tuple[str, str], np.ndarray]:
    """Return what each probe sees, (faces, ...), by shortcut and where it is."""
    sources = files.read_csv(folder / "pairs.csv").set_index("identity").loc[faces["identity"]]
    kinds = pd.get_dummies(sources["format"] + " " + sources["mode"])
    amounts = sources[["width", "height", "bytes"]]
    size = np.array([(crops_folder / path).stat().st_size for path in paths], float)
    edges = sources[["seam_start", "seam_end"]].div(sources["width"], axis=0)
    halves = _read(folder, faces["path"], (80, 92))
    squares = _read(crops_folder, paths, (64, 64))
    left = (faces["side"] == "left").to_numpy()[:, None, None, None]
    inner = np.where(left, halves[:, :, -_EDGE:], halves[:, :, :_EDGE])
    return {
        ("side", "source"): left,
        ("file format and size", "source"): np.hstack([kinds, amounts]),
        ("file format and size", "crop"): np.stack([size, np.log(size)], axis=1),
        ("seam", "source"): np.hstack([pd.get_dummies(sources["seam"]), edges]),
        ("edge at the seam", "source"): inner.mean(axis=1),
        ("brightness", "source"): _brightness(halves),
        ("brightness", "crop"): _brightness(squares),
        ("background", "source"): _background(halves, (4, 15)),
        ("background", "crop"): _background(squares, (4, 8)),
    }


def _read(folder: Path, paths: pd.Series, size: tuple[int, int]) -> np.ndarray:
    """Return the pictures `paths` below `folder`, brought to `size` (width, height), as uint8."""

    def read(path: str) -> np.ndarray:
        with Image.open(folder / path) as image:
            image.draft("RGB", size)
            return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))

    return np.stack(list(files.side_by_side(read, list(paths), "Reading pictures", "picture")))


def _background(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the upper corners of pictures side by side, as thumbnails of `size`."""
    height, width = (round(s * n) for s, n in zip(_CORNER, images.shape[1:3], strict=True))
    top = images[:, :height]
    corners = np.concatenate([top[:, :, :width], top[:, :, -width:]], axis=2)
    return np.stack([Image.fromarray(x).resize(size, Image.Resampling.BOX) for x in corners])


def _brightness(images: np.ndarray) -> np.ndarray:
    """Return mean and standard deviation of each channel, (pictures, 6)."""
    # One by one: as floats, all pictures of a large set would not fit into memory.
    return np.stack([np.append(x.mean(axis=(0, 1)), x.std(axis=(0, 1))) for x in images])
