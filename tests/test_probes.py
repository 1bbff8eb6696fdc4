import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import norm

from helpers import probes
from helpers.files import write_csv
from helpers.stats import identity_weights


def people(count):
    """Two rows for each of `count` people, every other of them positive."""
    return np.repeat([f"{n:05d}" for n in range(count)], 2), np.repeat(np.arange(count) % 2 == 0, 2)


def ask(features, identities, positive, seed=0):
    folds = probes.folds_of(positive, identities, ["a"] * len(positive), seed)
    return probes.probe(features, positive, folds, identity_weights(identities, 200, seed))


def test_a_probe_finds_what_a_feature_says():
    identities, positive = people(600)
    found = ask(np.random.default_rng(0).normal(positive[:, None]), identities, positive)
    known = norm.cdf(1 / np.sqrt(2))  # AUROC of two normals one standard deviation apart
    assert 0.5 < found.low < known < found.high


def test_a_probe_of_noise_or_of_who_somebody_is_holds_one_half():
    identities, positive = people(200)
    held = []
    for seed in range(12):
        noise = np.random.default_rng(seed).normal(size=(400, 5))
        found = ask(noise, identities, positive, seed)
        held.append(found.low <= 0.5 <= found.high)
    assert sum(held) >= 9  # 11 are expected
    # Tells every person apart, and nothing else.
    of_person = np.repeat(np.random.default_rng(0).normal(size=(200, 150)), 2, axis=0)
    found = ask(of_person, identities, positive)
    assert found.low <= 0.5 <= found.high


@pytest.mark.parametrize("kinds", [3, 101])
def test_folds_share_no_person_and_cover_every_row_once(kinds):
    """Also where each stratum is too small to be spread."""
    identities, positive = people(101)
    strata = [str(n % kinds) for n in range(len(positive))]
    tested = []
    for train, test in probes.folds_of(positive, identities, strata, seed=3):
        assert not set(identities[train]) & set(identities[test])
        assert positive[test].mean() == pytest.approx(0.5, abs=0.1)
        tested.extend(test)
    assert sorted(tested) == list(range(len(positive)))


def make_faces(folder, count):
    """Halves of grey noise, and crops alike.

    The halves that show Pain are brighter at the seam and in one corner, and come from PNG files.
    """
    rng, rows, sources = np.random.default_rng(0), [], []
    for person in range(count):
        identity, pain = f"1{person % 2}000{person:05d}", person % 2 == 1
        sources.append({"identity": identity, "format": "PNG" if pain else "JPEG", "mode": "RGB"})
        for side in ("left", "right"):
            label = "Pain" if pain and side == "right" else "NoPain"
            path = f"{identity}_{side}.png"
            rows.append({"image_id": path[:-4], "path": path, "identity": identity, "side": side,
                         "label": label})  # fmt: skip
            for where, extra in (("prepared", 40 * (label == "Pain")), ("crops", 0)):
                pixels = rng.integers(60, 90, (92, 80, 3), dtype=np.uint8)
                pixels[40:, :6] = pixels[:20, -9:-3] = 75 + extra
                (folder / where).mkdir(exist_ok=True)
                Image.fromarray(pixels).save(folder / where / path)
    table = pd.DataFrame(rows).assign(gender="Man", age="Young", ethnicity="Asian")
    for where in ("prepared", "crops"):
        write_csv(folder / where / "manifest.csv", table)
    seam = {"seam": "white", "seam_start": 80, "seam_end": 84}
    table = pd.DataFrame(sources).assign(width=164, height=92, bytes=9, **seam)
    write_csv(folder / "prepared" / "pairs.csv", table)
    return probes.probe_faces(folder / "prepared", folder / "crops", samples=200)


def test_the_audit_names_what_leaks_in_the_source_and_is_gone_in_the_crop(tmp_path):
    found = make_faces(tmp_path, 80).set_index(["shortcut", "where", "contrast"])
    for shortcut in ("file format and size", "brightness", "background"):
        assert found.loc[(shortcut, "source", "expressive"), "low"] > 0.95
        assert found.loc[(shortcut, "crop", "expressive"), "estimate"] < 0.7
    assert found.loc[("edge at the seam", "source", "all"), "low"] > 0.95
    # All Pain faces are right halves, as is a third of the others: (1 + 2/3) / 2.
    assert found.loc[("side", "source", "all"), "estimate"] == pytest.approx(5 / 6, abs=0.03)
    assert ("side", "source", "expressive") not in found.index


def test_too_few_people_give_no_number(tmp_path):
    found = make_faces(tmp_path, 8)
    assert len(found) == 17
    assert found[["estimate", "low", "high"]].isna().all(axis=None)
