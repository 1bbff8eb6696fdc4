"""The committed tables on corrupted faces, layers and maps, recomputed by other libraries.

They start from what only the weights could say and was kept: `corrupted_predictions.csv.gz`,
`cka.csv.gz`, `attribution_faces.csv.gz`. None of the helpers that made the tables is used.
"""

import itertools

import numpy as np
import pandas as pd
import pytest
from committed import among, auroc_draws, drawn, ends, needs_results, pain, read_runs, table
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

pytestmark = needs_results
TEACHERS = ("resnet50", "swin")
CORRUPTIONS = (
    "eyes mask quarter gaussian_blur gaussian_noise darkness jpeg_compression rotation".split()
)
LEVELS = (1, 2, 3)


@pytest.fixture(scope="module")
def runs():
    return read_runs()


@pytest.fixture(scope="module")
def corrupted(runs):
    """The test faces as each run sees them: {(arm, seed, corruption, strength): faces}."""
    faces = runs["swin"][0][["identity", "side", "label"]]
    kept = table("corrupted_predictions.csv.gz").join(faces, on="image_id")
    keys = ["arm", "seed", "corruption", "strength"]
    return {
        key: part.sort_values("image_id").set_index("image_id")
        for key, part in kept.groupby(keys, sort=False)
    }


@pytest.fixture(scope="module")
def auroc(corrupted):
    """The AUROC of each run, contrast and condition, by scikit-learn."""
    return {
        (*key, contrast): roc_auc_score(pain(part), part["probability"])
        for key, faces in corrupted.items()
        for contrast in ("all", "expressive")
        for part in [among(faces, contrast)]
    }


def seeds_of(found, arm):
    """Return what was found of each seed of an arm: {(seed, corruption, strength, ...): value}."""
    return {key[1:]: value for key, value in found.items() if key[0] == arm}


def losses(found, arm, corruption, contrast=()):
    """Return for each seed what a corruption took from an arm, the mean over its levels."""
    contrast = (contrast,) if contrast else ()
    each = seeds_of(found, arm)
    return np.array(
        [
            each[seed, "clean", 0, *contrast]
            - np.mean([each[seed, corruption, level, *contrast] for level in LEVELS], axis=0)
            for seed in sorted({key[0] for key in each})
        ]
    )


def test_every_run_saw_every_face_under_every_corruption(runs, corrupted):
    conditions = [("clean", 0), *itertools.product(CORRUPTIONS, LEVELS)]
    runs_made = [(arm, seed) for arm, seeds in runs.items() for seed in seeds]
    assert set(corrupted) == {(*r, *c) for r in runs_made for c in conditions}
    for (arm, seed, corruption, _), faces in corrupted.items():
        own = runs[arm][seed]
        assert list(faces.index) == list(own.index)
        if corruption == "clean":
            # Kept with five digits.
            apart = (faces["probability"] - own["probability"]).abs()
            assert apart.max() <= 0.5e-5 + 1e-9


def test_every_auroc_on_corrupted_faces_and_what_was_lost(runs, auroc):
    rows = table("robustness")
    assert len(rows) == len(runs) * 2 * (1 + len(CORRUPTIONS) * len(LEVELS))
    for row in rows.itertuples():
        found, clean = (
            np.mean([auroc[row.arm, seed, *condition, row.contrast] for seed in runs[row.arm]])
            for condition in ((row.corruption, row.strength), ("clean", 0))
        )
        assert row.estimate == pytest.approx(found, abs=1e-9), row
        assert row.drop_estimate == pytest.approx(clean - found, abs=1e-9), row


def test_every_interval_of_pain_against_other_expressions(runs, corrupted, auroc):
    faces = runs["swin"][0]
    counts = drawn(faces, pain(faces) | (faces["side"] == "right"))
    draws = {
        key: auroc_draws(among(found, "expressive"), counts) for key, found in corrupted.items()
    }
    for row in table("robustness").query("contrast == 'expressive'").itertuples():
        keys = [(row.arm, seed, row.corruption, row.strength) for seed in runs[row.arm]]
        clean = [(row.arm, seed, "clean", 0) for seed in runs[row.arm]]
        values, before = (np.array([auroc[*k, "expressive"] for k in ks]) for ks in (keys, clean))
        drawn_now, drawn_before = (np.array([draws[k] for k in ks]) for ks in (keys, clean))
        expected = ends(values, drawn_now, 0, 1)
        assert [row.low, row.high] == pytest.approx(expected, abs=1e-9), row
        expected = ends(before - values, drawn_before - drawn_now, -1, 1)
        assert [row.drop_low, row.drop_high] == pytest.approx(expected, abs=1e-9), row
    for row in table("inherited").query("contrast == 'expressive'").itertuples():
        for arms, low, high in (
            ((row.first_teacher, row.second_teacher), row.teachers_low, row.teachers_high),
            ((row.first, row.second), row.pupils_low, row.pupils_high),
        ):
            a, b = (losses(auroc, arm, row.corruption, "expressive") for arm in arms)
            of_a, of_b = (losses(draws, arm, row.corruption) for arm in arms)
            assert [low, high] == pytest.approx(ends(a - b, of_a - of_b, -2, 2), abs=1e-9), row


def test_which_teacher_and_which_pupil_a_corruption_costs_more(auroc):
    rows = table("inherited")
    assert len(rows) == 2 * len(CORRUPTIONS)
    for row in rows.itertuples():
        assert (row.first, row.second) == tuple(
            f"deit_tiny-{teacher}" for teacher in (row.first_teacher, row.second_teacher)
        )
        for arms, found in (
            ((row.first_teacher, row.second_teacher), row.teachers_estimate),
            ((row.first, row.second), row.pupils_estimate),
        ):
            a, b = (losses(auroc, arm, row.corruption, row.contrast).mean() for arm in arms)
            assert found == pytest.approx(a - b, abs=1e-9), row


def test_the_order_of_weaknesses_of_teachers_and_pupils(auroc):
    for row in table("inherited_ranks").itertuples():
        assert row.corruptions == len(CORRUPTIONS)
        extra = []
        for first, second in (("swin", "resnet50"), (row.first, row.second)):
            a, b = (
                [losses(auroc, arm, name, row.contrast).mean() for name in CORRUPTIONS]
                for arm in (first, second)
            )
            extra.append(np.subtract(a, b))
        assert row.rho == pytest.approx(spearmanr(*extra).statistic, abs=1e-9)


@pytest.fixture(scope="module")
def likeness():
    """CKA both ways: {((arm, seed, layer), (arm, seed, layer)): value}."""
    found = {}
    for row in table("cka.csv.gz").itertuples():
        first = (row.first_arm, row.first_seed, row.first_layer)
        second = (row.second_arm, row.second_seed, row.second_layer)
        assert (first, second) not in found
        found[first, second] = found[second, first] = row.cka
    return found


LAYERS = {
    "resnet50": ["stem", *(f"stage {i}" for i in range(1, 5))],
    "swin": [f"stage {i}" for i in range(1, 5)],
    "deit_tiny": [f"block {i}" for i in (3, 6, 9, 12)],
}


def layers_of(run):
    return [(*run, layer) for layer in LAYERS[run[0].partition("-")[0]]]


def together(runs):
    """Return the sets of runs of which each two are compared: one seed's, and one arm's."""
    seeds = sorted(runs["swin"])
    return [[(arm, seed) for arm in runs] for seed in seeds] + [
        [(arm, seed) for seed in seeds] for arm in runs
    ]


def test_layers_are_compared_within_a_seed_and_within_an_arm(runs, likeness):
    expected = {
        pair
        for group in together(runs)
        for first, second in itertools.permutations(group, 2)
        for pair in itertools.product(layers_of(first), layers_of(second))
    }
    assert set(likeness) == expected
    rows = table("cka.csv.gz")
    assert rows["cka"].between(-1, 1).all()
    assert not (rows["first_arm"].isin(TEACHERS) & ~rows["second_arm"].isin(TEACHERS)).any()


def test_every_cka_is_a_cosine(runs, likeness):
    """Of unit vectors: whichever layer of each run is chosen, the angles fit together."""
    for group in together(runs):
        grams = []
        for chosen in itertools.product(*map(layers_of, group)):
            gram = np.eye(len(chosen))
            for (i, a), (j, b) in itertools.combinations(enumerate(chosen), 2):
                gram[i, j] = gram[j, i] = likeness[a, b]
            grams.append(gram)
        assert np.linalg.eigvalsh(grams).min() > -1e-5, group


def test_every_share_of_a_map_is_a_share(runs):
    faces = table("attribution_faces.csv.gz")
    shown = runs["swin"][0].query("label == 'Pain'")
    assert set(faces["image_id"]) == set(shown.index)
    assert (faces["identity"] == shown.loc[faces["image_id"], "identity"].to_numpy()).all()
    assert (faces["share"].dropna() >= 0).all()
    # Six digits each, so that five regions are within 2.5e-6 of their sum.
    assert (faces["share"].dropna() <= faces["most"][faces["share"].notna()] + 2e-6).all()
    maps = faces.groupby(["arm", "seed", "method", "image_id"])
    assert (maps["region"].apply(frozenset).map(len) == 5).all()
    np.testing.assert_allclose(maps["chance"].sum(), 1, atol=3e-6)
    shares = maps["share"].agg(["sum", "count"])
    assert shares["count"].isin([0, 5]).all()
    np.testing.assert_allclose(shares["sum"][shares["count"] == 5], 1, atol=3e-6)
    assert (faces.groupby(["image_id", "region"])["chance"].nunique() == 1).all()
    methods = faces.groupby("arm")["method"].unique().map(sorted)
    for arm in runs:
        assert methods[arm] == ["grad_cam"] + ["rollout"] * (arm not in TEACHERS)


def test_every_mean_share_of_a_map():
    faces = table("attribution_faces.csv.gz")
    rows = table("attribution")
    keys = ["arm", "seed", "method", "region"]
    assert len(rows) == len(faces[keys].drop_duplicates())
    for row in rows.itertuples():
        part = faces[(faces[keys] == [getattr(row, key) for key in keys]).all(axis=1)]
        known = part[part["share"].notna()]
        assert (row.faces, row.blank) == (len(known), len(part) - len(known))
        for name in ("share", "chance", "most"):
            assert getattr(row, name) == pytest.approx(np.mean(known[name]), abs=1e-9), row
        assert row.ratio == pytest.approx(np.mean(known["share"]) / np.mean(known["chance"]))


def test_maps_and_layers_are_of_the_committed_runs(runs):
    for name in ("attribution", "robustness"):
        assert set(table(name)["arm"]) == set(runs)
    seen = table("attribution")[["arm", "seed"]].drop_duplicates()
    expected = pd.DataFrame([(arm, seed) for arm in runs for seed in runs[arm]])
    assert set(seen.itertuples(index=False, name=None)) == set(
        expected.itertuples(index=False, name=None)
    )
