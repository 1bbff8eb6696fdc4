"""The audit of the committed stand-in: it fails where the pictures would mislead the study."""

import importlib.util
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from helpers.cropping.crops import crop_faces
from helpers.cropping.probes import probe
from helpers.cropping.shortcuts import colour_statistics, probe_pairs, read_pictures
from helpers.dataset.naming import parse_name
from helpers.dataset.prepare import prepare_dataset
from helpers.files import ROOT, read_csv

STANDIN = ROOT / "data/standin"
HARD = {"laugh", "squint", "disgust", "anger", "closed"}
KINDS = HARD | {"neutral", "pain", "smile", "surprise", "sad", "fear", "speech"}


@pytest.fixture(scope="module")
def pairs():
    """One row a committed pair."""
    return pd.DataFrame([vars(parse_name(p.name)) for p in (STANDIN / "pairs").iterdir()])


@pytest.fixture(scope="module")
def attributes():
    """One row a committed half."""
    return read_csv(STANDIN / "attributes.csv")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """What notebook 01 makes of the committed pairs."""
    folder = tmp_path_factory.mktemp("standin") / "prepared"
    prepare_dataset(STANDIN / "pairs", folder, None, [0.7, 0.15, 0.15], 0)
    return folder


@pytest.fixture(scope="module")
def probes(prepared):
    """The shortcut probes, with `low` and `high` of their AUROC."""
    return probe_pairs(prepared, STANDIN / "pairs", samples=1000)


def test_every_cell_has_25_people_and_nobody_is_there_twice(pairs):
    assert pairs["identity"].is_unique
    cells = Counter(map(tuple, pairs.drop(columns="identity").to_numpy()))
    assert len(cells) == 40
    assert set(cells.values()) == {25}


def test_the_folder_can_be_cloned():
    size = sum(path.stat().st_size for path in STANDIN.rglob("*") if path.is_file())
    assert size < 60e6


def test_every_half_has_its_row(pairs, attributes):
    expected = {
        f"{identity}_{side}" for identity in pairs["identity"] for side in ("left", "right")
    }
    assert set(attributes["image_id"]) == expected
    assert len(attributes) == len(expected)
    assert set(attributes["kind"]) == KINDS
    left = attributes["side"] == "left"
    assert set(attributes.loc[left, "kind"]) == {"neutral"}
    pain = attributes["identity"].str[1] == "1"
    assert ((attributes["kind"] == "pain") == (pain & ~left)).all()


def test_pspi_is_prkachin_and_solomons(attributes):
    a = attributes
    pspi = a["AU4"] + a[["AU6", "AU7"]].max(axis=1) + a[["AU9", "AU10"]].max(axis=1) + a["AU43"]
    assert np.allclose(pspi, a["pspi"], atol=0.01)
    units = a.filter(regex="^AU").drop(columns="AU43")
    assert ((units >= 0) & (units <= 5)).all(axis=None)
    assert a["AU43"].between(0, 1).all()


def test_pain_is_a_dose_that_no_pain_overlaps_from_below(attributes):
    pain = attributes.loc[attributes["kind"] == "pain", "pspi"]
    hard = attributes.loc[attributes["kind"].isin(HARD), "pspi"]
    assert pain.min() >= 2.5
    assert pain.max() <= 16
    assert np.histogram(pain, [2.5, 6, 9, 12, 16])[0].min() >= 50  # weak to strong, all of them
    assert hard.quantile(0.9) > pain.quantile(0.1)
    assert attributes.loc[attributes["kind"] == "neutral", "pspi"].max() < pain.min()


def test_half_of_the_expressive_no_pain_halves_are_hard(attributes):
    expressive = attributes[(attributes["side"] == "right") & (attributes["kind"] != "pain")]
    assert expressive["kind"].isin(HARD).mean() >= 0.5


def test_mtcnn_finds_the_faces(prepared, tmp_path):
    crops = crop_faces(prepared, tmp_path, crop_size=64, margin=0.2, min_face_size=80, device="cpu")
    assert len(crops) == 2000
    assert crops["detected"].mean() >= 0.995


def test_no_shortcut_tells_a_pain_pair(probes):
    holds = (probes["low"] <= 0.5) & (probes["high"] >= 0.5)
    assert holds.all(), probes[~holds].to_string()
    assert len(probes) == 7


def test_the_audit_would_see_a_change_of_exposure(prepared):
    """Pain pairs brighter by 5 grey levels of 255 in their neutral half, and nothing else."""
    faces = read_csv(prepared / "manifest.csv")
    left = faces[faces["side"] == "left"]
    neutral = read_pictures(prepared, left["path"], (20, 23)).astype(float)
    pain = (left["expression"] == "Pain").to_numpy()
    as_it_is = probe(colour_statistics(neutral), pain, list(left["identity"]), samples=300)
    neutral[pain] += 5
    planted = probe(colour_statistics(neutral), pain, list(left["identity"]), samples=300)
    assert as_it_is.low < 0.5 < planted.low


def test_the_data_card_names_every_action_unit(attributes):
    card = (ROOT / "data/README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| (AU\d+) ", card, re.MULTILINE))
    assert named == set(attributes.filter(regex="^AU").columns)


def test_the_data_card_says_what_was_measured():
    path = ROOT / "benchmarks/standin_audit.py"
    spec = importlib.util.spec_from_file_location("standin_audit", path)
    audit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(audit)
    names = ("facts", "probes", "difficulty", "dose")
    tables = {name: pd.read_csv(ROOT / f"results/standin_audit/{name}.csv") for name in names}
    assert audit.card(tables) in (ROOT / "data/README.md").read_text(encoding="utf-8")
    # Hard, not broken, and hardest where it should be.
    accuracy = tables["difficulty"].set_index("kind")["accuracy"]
    assert 0.80 <= accuracy["all expressive halves"] <= 0.93
    assert max(accuracy["laugh"], accuracy["squint"]) < accuracy["surprise"]
