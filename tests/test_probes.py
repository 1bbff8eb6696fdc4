import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import norm

from helpers.cropping.probe_views import intervals, read_intervals
from helpers.cropping.probes import folds_of, logistic, out_of_fold, probe
from helpers.cropping.shortcuts import background, colour_statistics, one_hot, probe_faces
from helpers.cropping.small_net import small_net_learner, train_small_net
from helpers.dataset.prepare import prepare_dataset


def people(count):
    """Two rows for each of `count` people, every other of them positive."""
    identities = np.repeat([f"{n:05d}" for n in range(count)], 2)
    return identities, np.repeat(np.arange(count) % 2 == 0, 2)


def test_a_probe_finds_what_a_feature_says():
    identities, positive = people(600)
    shift = 1.0
    features = np.random.default_rng(0).normal(size=(1200, 1)) + shift * positive[:, None]
    found = probe(features, positive, identities, samples=500)
    known = norm.cdf(shift / np.sqrt(2))  # AUROC of two normals one standard deviation apart
    assert found.low < known < found.high
    assert found.low > 0.5


def test_a_probe_of_noise_holds_one_half():
    identities, positive = people(200)
    held = []
    for seed in range(25):
        features = np.random.default_rng(seed).normal(size=(400, 5))
        found = probe(features, positive, identities, samples=200, seed=seed)
        held.append(found.low <= 0.5 <= found.high)
    assert sum(held) >= 20  # of 25; 24 are expected


def test_a_probe_cannot_use_who_somebody_is():
    identities, positive = people(200)
    of_person = np.random.default_rng(0).normal(size=(200, 150))
    features = np.repeat(of_person, 2, axis=0)  # tells every person apart, and nothing else
    found = probe(features, positive, identities, samples=200)
    assert found.low <= 0.5 <= found.high


def test_folds_share_no_person_and_cover_every_row_once():
    identities, positive = people(101)
    strata = np.resize(["a", "b", "c"], len(positive))
    tested = []
    for train, test in folds_of(positive, identities, strata, seed=3):
        assert not set(identities[train]) & set(identities[test])
        tested.extend(test)
    assert sorted(tested) == list(range(len(positive)))


def test_scores_are_ranks_within_the_fold():
    identities, positive = people(50)
    features = np.random.default_rng(0).normal(size=(100, 2))
    scores = out_of_fold(features, positive, identities, None, logistic)
    assert scores.min() > 0
    assert scores.max() == 1


def test_the_network_sees_a_shape_that_has_no_mean():
    """A checkerboard or its negative: every statistic of colour is the same, only place tells."""
    rng = np.random.default_rng(0)
    positive = np.arange(160) % 2 == 0
    images = rng.integers(60, 120, (160, 32, 32, 3), dtype=np.uint8)
    images[positive, 4:16, 4:28] = 220
    images[~positive, 16:28, 4:28] = 220
    identities = [str(n) for n in range(160)]
    found = probe(images, positive, identities, learner=small_net_learner(4), samples=100)
    assert found.value > 0.95
    assert (
        abs(probe(colour_statistics(images), positive, identities, samples=100).value - 0.5) < 0.2
    )


def test_the_network_is_seeded():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (64, 32, 32, 3), dtype=np.uint8)
    positive = np.arange(64) < 32
    one, same, other = (
        train_small_net(images, positive, 1, seed)(images[:8]) for seed in (0, 0, 1)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_background_is_the_two_upper_corners():
    images = np.zeros((1, 100, 100, 3), np.uint8)
    images[:, :32, :15], images[:, :32, 85:] = 10, 20
    corners = background(images)
    assert corners.shape == (1, 32, 30, 3)
    assert (corners[:, :, :15] == 10).all()
    assert (corners[:, :, 15:] == 20).all()


def test_colour_statistics_match_numpy():
    images = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    found = colour_statistics(images)
    red = images[1, :, :, 0].astype(float)
    assert found.shape == (2, 15)
    assert found[1, 0] == pytest.approx(red.mean(), rel=1e-5)
    assert found[1, 3] == pytest.approx(red.std(), rel=1e-5)
    assert found[1, 9] == pytest.approx(np.median(red))


def test_one_hot_has_a_column_for_each_combination():
    table = pd.DataFrame({"a": ["x", "x", "y"], "b": [1, 2, 1]})
    assert one_hot(table).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    """Probes of 80 pairs of grey noise of which the Pain ones alone are PNG files, and brighter."""
    folder = tmp_path_factory.mktemp("leaky")
    raw, prepared, crops = folder / "raw", folder / "prepared", folder / "crops"
    raw.mkdir()
    rng = np.random.default_rng(0)
    for person in range(80):
        pain = person % 2
        pixels = rng.integers(60, 90, (92, 164, 3), dtype=np.uint8)
        pixels[:, 82:] += 40 * pain  # bright where it shows pain
        pixels[:, 80:84] = 255
        name = f"1{pain}000{person:05d}_{'Pain' if pain else 'NoPain'}_Man_Young.jpg"
        Image.fromarray(pixels).save(raw / name, "PNG" if pain else "JPEG", quality=95)
    prepare_dataset(raw, prepared, None, [0.7, 0.15, 0.15], 0)
    crops.mkdir()
    table = pd.read_csv(prepared / "manifest.csv", dtype={"identity": str})
    for path in table["path"]:
        (crops / path).parent.mkdir(exist_ok=True)
        pixels = np.full((64, 64, 3), 128) + rng.integers(0, 8, (64, 64, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(crops / path)
    table.to_csv(crops / "manifest.csv", index=False)
    return probe_faces(prepared, crops, samples=200)


def test_the_audit_names_what_leaks_in_the_source_and_is_gone_in_the_crop(leaky):
    found = leaky.set_index(["shortcut", "where", "contrast"])
    assert found.loc[("file format and size", "source", "expressive"), "low"] > 0.95
    assert found.loc[("brightness", "source", "expressive"), "low"] > 0.95
    for shortcut in ("file format and size", "brightness", "background"):
        crop = found.loc[(shortcut, "crop", "expressive")]
        assert crop["low"] <= 0.5 <= crop["high"]


def test_the_side_tells_what_the_labelling_rule_says(leaky):
    """All Pain faces are right halves, as is a third of the others: (1 + 2/3) / 2."""
    side = leaky[leaky["shortcut"] == "side"]
    assert list(side["contrast"]) == ["all"]
    assert side["estimate"].item() == pytest.approx(5 / 6, abs=0.03)


def test_the_audit_is_read_out(leaky):
    text = read_intervals(leaky)
    assert "file format and size in the source (1.00" in text
    assert "in the crop (" not in text.split("expressive NoPain")[1]
    assert [ax.get_title("left") or ax.get_title() for ax in intervals(leaky).axes] == [
        "Pain vs every other face",
        "Pain vs expressive NoPain",
    ]


def test_too_few_people_give_no_number():
    identities, positive = people(8)
    found = probe(np.random.default_rng(0).normal(size=(16, 2)), positive, identities, samples=10)
    assert np.isnan(found.value)
    assert np.isnan(found.low)


def test_small_strata_do_not_stop_a_probe(recwarn):
    identities, positive = people(12)
    strata = np.repeat([str(n) for n in range(12)], 2)
    features = positive[:, None] + np.zeros((24, 1))
    assert probe(features, positive, identities, strata, samples=10).value == 1
    assert not recwarn
