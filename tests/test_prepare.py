import hashlib
import json
import os
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_pairs import pair, scene

from helpers import pairs, prepare
from helpers.files import ROOT, StudyError, read_csv
from helpers.parameters import read_config

NAMES = """1000000001_NoPain_man_Young.jpg 1101400002_Pain_Man_Old.jpg
    1110200003_Pain_woman_Young.jpg 1011300004_NoPain_Woman_Old.jpg""".split()


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw" / "Images"
    folder.mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        Image.fromarray(pair(seed=seed)).save(folder / name, quality=90)
    return folder.parent


def run(raw, out, folds_file=None, asked=(0.7, 0.15, 0.15), seed=0):
    return prepare.prepare_dataset(raw, out, folds_file, list(asked), seed)


def contents(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def dirty_tree(raw):
    """Unpack one file for each way to be of no use and each odd way to be fine; add no files."""
    with zipfile.ZipFile(ROOT / "tests/golden/dirty_tree.zip") as archive:
        archive.extractall(raw)
    (raw / "odd").rename(raw / os.fsdecode(b"f\xffolder"))
    (raw / "1000000203_NoPain_man_Young.jpg").symlink_to(raw / "nowhere.jpg")
    (raw / "1000000204_NoPain_man_Young.jpg").symlink_to("1000000204_NoPain_man_Young.jpg")
    os.mkfifo(raw / "1000000205_NoPain_man_Young.jpg")
    with open(raw / "1000000206_NoPain_man_Young.jpg", "wb") as file:
        file.truncate(300 * 2**20)
    (raw / "again").symlink_to(raw / "Images")
    (raw / "loop").symlink_to(raw)


def test_a_dirty_tree_is_sorted_as_ever(tmp_path):
    """Golden: the reasons and the sources that the code before the redesign gave."""
    raw = tmp_path / "raw"
    dirty_tree(raw)
    made = run(raw, tmp_path / "out")
    golden = json.loads((ROOT / "tests/golden/dirty_tree.json").read_text(encoding="utf-8"))
    rejected = read_csv(tmp_path / "out/rejected.csv")
    assert dict(zip(rejected["path"], rejected["reason"], strict=True)) == golden["rejected"]
    kinds = made.pairs[["format", "mode", "width", "height", "seam", "seam_start", "seam_end"]]
    accepted = dict(zip(made.pairs["path"], kinds.to_numpy().tolist(), strict=True))
    assert accepted == golden["accepted"]
    assert len(accepted) + len(rejected) == sum(len(names) for _, _, names in os.walk(raw))
    assert str(tmp_path) not in rejected["detail"].str.cat()
    notebook = (ROOT / "notebooks/01_prepare_dataset.ipynb").read_text(encoding="utf-8")
    assert all(f"`{reason}`" in notebook for reason in set(rejected["reason"]))


def test_faces_labels_and_manifest(raw, tmp_path):
    manifest = run(raw, tmp_path / "out").manifest
    pd.testing.assert_frame_equal(manifest, read_csv(tmp_path / "out/manifest.csv"))
    row = manifest.set_index("image_id").loc["1101400002_right"]
    columns = (
        "path identity side label expression gender age ethnicity split site width height sha256"
    )
    assert " ".join(row.index) == columns
    words = "Pain/1101400002_right.jpg 1101400002 right Pain Pain Man Old Asian"
    assert " ".join(row.iloc[:8]) == words
    assert (manifest["label"] == "Pain").sum() == 2
    assert set(manifest.loc[manifest["side"] == "left", "label"]) == {"NoPain"}
    for face in manifest.itertuples():
        path = tmp_path / "out" / face.path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == face.sha256
        with Image.open(path) as image:
            said = (image.size, image.format, dict(image.getexif()), image.layer[0][1:3])
        assert said == ((face.width, face.height), "JPEG", {}, (1, 1))  # no colour is halved


def test_a_call_that_was_broken_off_goes_on_and_ends_the_same(raw, tmp_path, monkeypatch):
    run(raw, tmp_path / "whole")
    out, write, written = tmp_path / "out", pairs.write_jpeg, []

    def stop_later(path, pixels):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write(path, pixels)

    monkeypatch.setattr(pairs, "write_jpeg", stop_later)
    with pytest.raises(KeyboardInterrupt):
        run(raw, out)
    assert not (out / "manifest.csv").exists()
    half = "Pain/.1101400002_right-x1.jpg record/.1101400002-x_z.json .manifest-a1.csv Pain/my.jpg"
    for name in half.split():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("half or mine")
    written.clear()
    run(raw, out)
    assert len(written) < 5
    monkeypatch.setattr(pairs, "open_picture", None)  # whoever decodes a picture again, fails
    run(raw, out)
    assert contents(out) == contents(tmp_path / "whole") | {"Pain/my.jpg": b"half or mine"}
    monkeypatch.setattr(prepare, "_MADE_BY", "another cut")
    with pytest.raises(TypeError):
        run(raw, out)


def test_the_folder_follows_its_input_and_its_folds(raw, tmp_path):
    out = tmp_path / "out"
    lines = [f"{name[:10]},{n}\r\n" for n, name in enumerate(NAMES)]
    (raw / "SynPain_folds.txt").write_text("".join(lines))
    made = run(raw, out, "auto", [4, 0])
    assert made.manifest.set_index("image_id")["split"][f"{NAMES[0][:10]}_left"] == "test"
    assert made.folds_file.endswith("SynPain_folds.txt")
    folds = read_csv(out / "folds.csv")
    assert folds["fold"].to_list() == [0, 3, 1, 2]  # in the order of IDs
    again = run(raw, tmp_path / "again", out / "folds.csv", [4, 0])
    pd.testing.assert_frame_equal(again.manifest, made.manifest)
    (raw / "Images" / NAMES[1]).unlink()
    Image.fromarray(pair(seed=9)).save(raw / "Images" / NAMES[2])
    run(raw, out)
    run(raw, tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


def test_people_with_nearly_the_same_picture_are_in_one_split(raw, tmp_path):
    for n in range(5, 12):
        Image.fromarray(pair(seed=20 * n)).save(raw / f"10000000{n:02}_NoPain_man_Young.png")
    again = np.concatenate([pair(seed=180)[:, :154], scene(152, 160, 20, 90, 500)], axis=1)
    Image.fromarray(again).resize((459, 240)).save(raw / "1000000055_NoPain_man_Young.jpg")
    for seed in range(4):
        made = run(raw, tmp_path / "out", seed=seed)
        ties = read_csv(tmp_path / "out/duplicates.csv").iloc[:, :4].astype(str)
        assert ties.to_numpy().tolist() == [["1000000009", "left", "1000000055", "left"]]
        tied = made.manifest[made.manifest["identity"].isin(ties.to_numpy()[0])]
        assert tied["split"].nunique() == 1


def test_folders_that_cannot_be_used(raw, tmp_path, monkeypatch):
    with pytest.raises(StudyError, match="may not lie in"):
        run(raw / "Images", raw)
    run(raw, tmp_path / "out")
    shutil.rmtree(raw / "Images")
    (raw / "a.jpg").write_bytes(b"x")
    walk = os.walk

    def closed(folder, onerror, **options):
        onerror(PermissionError(13, "Permission denied", f"{folder}/closed"))
        return walk(folder, **options)

    monkeypatch.setattr(os, "walk", closed)
    with pytest.raises(StudyError, match=r"No file in .* is a usable pair.*rejected\.csv"):
        run(raw, tmp_path / "out")
    assert [*contents(tmp_path / "out")] == ["rejected.csv"]
    reasons = read_csv(tmp_path / "out/rejected.csv").set_index("path")["reason"].to_dict()
    assert reasons == {"a.jpg": "bad_name", "closed": "unreadable"}


def test_the_command_prepares_with_the_values_of_the_study(raw, tmp_path, monkeypatch, capsys):
    (raw / "note.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    whole = run(raw, tmp_path / "out")
    prepare.main(["raw", "out"])
    assert capsys.readouterr().out.splitlines() == [
        "4 pairs accepted; files not used: {'other_file': 1}",
        "8 faces: {'train': 4, 'validation': 2, 'test': 2}",
    ]
    with pytest.raises(SystemExit, match=r"^The folder .*none \(side-by-side pairs\) does not"):
        prepare.main(["none", "out"])
    given = []
    monkeypatch.setattr(prepare, "prepare_dataset", lambda *values: given.extend(values) or whole)
    prepare.main(["raw", "out"])
    config = read_config(ROOT / "config/synpain.yaml")
    names = ("folds_file", "split_ratios", "split_seed")
    assert given == [str(tmp_path / "raw"), str(tmp_path / "out"), *map(config.get, names)]
