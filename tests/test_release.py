"""Releases: packed twice the same, verified whole, and no fault goes unnamed."""

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from importlib.metadata import version

import numpy as np
import onnx
import pandas as pd
import pytest
import yaml
from released_runs import (
    ABLATED,
    NAME,
    TAUGHT,
    change_json,
    make_crops,
    make_study,
    small_student,
    small_teacher,
)
from safetensors.torch import load_file, save_file

from helpers.dataset.pictures import read_rgb
from helpers.errors import StudyError
from helpers.export.metadata import describe
from helpers.files import ROOT, read_csv, sha256
from helpers.metrics import CONTRASTS
from helpers.predict.face_spec import FaceSpec, heads_of
from helpers.predict.faces import see_cropped
from helpers.predict.loading import load_predictor
from helpers.release import archive as release_archive
from helpers.release import command as release
from helpers.release.archive import SUMS, checksum_lines, unpack, write_archive
from helpers.release.verify import verify
from helpers.training import trained

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TOP = f"{PROJECT['name']}-{PROJECT['version']}-{NAME}"
COMMIT = "ab" * 20
RUN = f"runs/{NAME}/{TAUGHT}"
WEIGHTS = f"{RUN}/model.safetensors"
TEACHERS = f"runs/{NAME}/teacher/resnet50/seed0/model.safetensors"


@pytest.fixture(scope="module", autouse=True)
def small_networks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained, "build_student", small_student)
        patch.setattr(trained, "build_teacher", small_teacher)
        # a commit while the tests run would change what is packed
        patch.setattr(release, "git_commit", lambda: f"{COMMIT}+")
        patch.setattr(release, "_is_clean", lambda: False)
        yield


@pytest.fixture(scope="module")
def crops_dir(tmp_path_factory):
    return make_crops(tmp_path_factory.mktemp("data") / "crops")


@pytest.fixture(scope="module")
def made(tmp_path_factory, crops_dir):
    """A study as it lies before it is packed."""
    root = tmp_path_factory.mktemp("study")
    make_study(root, crops_dir)
    return root


@pytest.fixture(scope="module")
def packed(made):
    """Its release."""
    return release.pack(made / f"config/{NAME}.yaml", root=made)


@pytest.fixture
def study(made, tmp_path):
    """A copy to spoil."""
    shutil.copytree(made, tmp_path / "study", ignore=shutil.ignore_patterns("dist"))
    return tmp_path / "study"


@pytest.fixture
def opened(packed, tmp_path):
    """A release unpacked, to spoil."""
    return unpack(packed, tmp_path / "opened")


def again(folder, out, sums=True):
    """Pack a spoilt release again; `sums`: with checksums that fit."""
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    old = files.pop(SUMS)
    if sums:
        return write_archive(files, TOP, out)
    with tarfile.open(out, "w:gz") as tar:
        for name, path in [*files.items(), (SUMS, old)]:
            tar.add(path, f"{TOP}/{name}")
    return out


def outcome(bundle, capsys, *options):
    """The exit status and the output of the command."""
    capsys.readouterr()
    status = release.main(["verify", str(bundle), *options])
    return status, capsys.readouterr().out


class TestPack:
    def test_twice_gives_the_same_bytes(self, made, packed, tmp_path):
        assert packed == made / f"dist/{TOP}.tar.gz"
        for path in (made / "runs").rglob("*"):
            os.utime(path)
        second = release.pack(made / f"config/{NAME}.yaml", tmp_path / "other.tar.gz", made)
        assert second.read_bytes() == packed.read_bytes()
        assert list(tmp_path.iterdir()) == [second]

    def test_it_holds_what_a_reader_needs(self, opened, made):
        names = {p.relative_to(opened).as_posix() for p in opened.rglob("*") if p.is_file()}
        runs = {p.parent.relative_to(made).as_posix() for p in made.rglob("metrics.json")}
        assert len(runs) == 7
        parts = "params.json history.csv predictions.csv metrics.json model.safetensors".split()
        expected = {f"{run}/{part}" for run in runs for part in parts}
        tables = [*made.glob(f"results/{NAME}/*"), *made.glob(f"figures/{NAME}/*")]
        expected |= {path.relative_to(made).as_posix() for path in tables}
        expected |= {f"config/{NAME}.yaml", "config/ablations/soft.yaml", SUMS, "release.json"}
        expected |= set(
            "MODEL_CARD.md CITATION.cff LICENSE DATA_LICENCES.md requirements.txt".split()
        )
        assert names == expected
        assert not re.search(r"\d\d:\d\d", (opened / "release.json").read_text())

    def test_it_says_what_it_is_of(self, opened):
        said = json.loads((opened / "release.json").read_text())
        assert (said["project"], said["version"]) == (PROJECT["name"], PROJECT["version"])
        assert (said["config"], said["commit"], said["clean"]) == (NAME, COMMIT, False)
        assert said["created_by"]["torch"] == version("torch")

    def test_it_says_who_recorded_which_weights(self, opened):
        runs = json.loads((opened / "release.json").read_text())["runs"]
        assert [run["weights_sha256"] for run in runs] == [
            sha256(opened / "runs" / NAME / run["folder"] / "model.safetensors") for run in runs
        ]
        found = {run["folder"]: run["recorded_by"] for run in runs}
        assert found["teacher/resnet50/seed0"] == sorted([TAUGHT, ABLATED])
        assert found[TAUGHT] == []

    def test_times_and_owners_are_of_nobody(self, packed):
        with tarfile.open(packed) as tar:
            members = tar.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o644)}
        names = [m.name for m in members]
        assert names == [*sorted(names[:-1]), f"{TOP}/{SUMS}"]
        assert packed.read_bytes()[4:8] == bytes(4)

    def test_a_students_export_goes_along(self, study, tmp_path, capsys):
        add_export(study / RUN, sha256(study / WEIGHTS))
        bundle = release.pack(study / f"config/{NAME}.yaml", root=study)
        top = unpack(bundle, tmp_path / "opened")
        names = {path.name for path in (top / RUN / "onnx").iterdir()}
        assert names == {"model.onnx", "pnet.onnx"}
        assert "which needs no torch" in (top / "MODEL_CARD.md").read_text()
        assert outcome(bundle, capsys)[0] == 0
        add_export(top / RUN, "00")
        status, said = outcome(again(top, tmp_path / "b.tar.gz"), capsys)
        assert status == 1
        assert "is not the file that onnx/model.onnx was made with" in said

    def test_from_the_command_line_a_bad_config_is_one_sentence(self, tmp_path, capsys):
        assert release.main(["pack", str(tmp_path / "none.yaml")]) == 1
        assert capsys.readouterr().err.strip().endswith("none.yaml does not exist.")


def add_export(run, digest):
    """Write an ONNX file that says it was made of the weights `digest`, and a detector's."""
    (run / "onnx").mkdir(exist_ok=True)
    graph = onnx.helper.make_graph([], "empty", [], [])
    model = onnx.helper.make_model(graph)
    heads = heads_of("student", distilled=True)
    describe(model, FaceSpec("a", 0, heads, 32, 37, 256, 0.2, 80, digest, "float32"))
    onnx.save(model, run / "onnx/model.onnx")
    (run / "onnx/pnet.onnx").write_bytes(b"x")


def drop_metrics(study):
    (study / RUN / "metrics.json").unlink()


def drop_weights(study):
    (study / WEIGHTS).unlink()


def other_rate(study):
    change_json(study / RUN / "params.json", parameters={"learning_rate": 0.5})


def other_labels(study):
    change_json(study / f"runs/{NAME}/{ABLATED}/params.json", parameters={"distillation": "hard"})


def other_crops(study):
    change_json(study / RUN / "params.json", crops_sha256="ff")


def other_place(study):
    change_json(study / RUN / "params.json", parameters={"seed": 7})


def no_config(study):
    (study / "config/ablations/soft.yaml").unlink()


def other_teacher(study):
    shutil.copy(study / TEACHERS.replace("seed0", "seed1"), study / TEACHERS)


def other_student(study):
    shutil.copy(study / WEIGHTS.replace("seed0", "seed1"), study / WEIGHTS)


def other_record(study):
    change_json(study / RUN / "metrics.json", weights_sha256="ff")


def old_export(study):
    add_export(study / RUN, "ff")


def edit(study, name, **values):
    path = study / f"results/{NAME}/{name}"
    table = read_csv(path)
    rows = table["metric"] == "auroc" if "metric" in table else table["kind"] == "arm"
    rows &= rows.cumsum() == 1
    for column, value in values.items():
        table.loc[rows, column] = value
    table.to_csv(path, index=False)


def other_table(study):
    edit(study, "seeds.csv", estimate=0.123)


def other_mean(study):
    edit(study, "metrics.csv", estimate=0.123)


def other_interval(study):
    edit(study, "metrics.csv", low=0.123)


def other_ablations(study):
    path = study / f"results/{NAME}/ablations.csv"
    table = read_csv(path)
    table[table["ablation"] == "study"].to_csv(path, index=False)


def other_kept(study):
    change_json(study / f"results/{NAME}/cka.json", **{"resnet50/seed0": "ff"})


def other_seed(study):
    path = study / f"results/{NAME}/seeds.csv"
    table = read_csv(path)
    pd.concat([table, table.assign(seed=9)]).to_csv(path, index=False)


def no_table(study):
    (study / f"results/{NAME}/seeds.csv").unlink()


def other_published(study):
    path = study / f"results/{NAME}/runs/{TAUGHT}/predictions.csv"
    path.parent.mkdir(parents=True)
    path.write_text("other")


REFUSED = [
    (drop_metrics, r"deit_tiny-resnet50/seed0 is missing or unfinished: make report"),
    (drop_weights, r"no finished run: It lacks model\.safetensors\."),
    (other_rate, r"seed0 was made with learning_rate 0\.5, not 0\.0001\."),
    (other_labels, r"ablations/soft/.* was made with distillation hard, not soft\."),
    (other_crops, r"were made on different crops\."),
    (other_place, r"It holds the student deit_tiny-resnet50, seed 7\."),
    (no_config, r"is of an ablation that has no config\."),
    (other_teacher, r"teacher/resnet50/seed0/.* is not the file that .*student.* was made with\."),
    (other_student, r"student/deit_tiny-resnet50/seed0/.* is not what predicted: P\(pain\) of 8"),
    (other_record, r"is not the file that its metrics\.json records\."),
    (old_export, r"is not the file that onnx/model\.onnx was made with\."),
    (other_table, r"seeds\.csv: the AUROC of .* is 0\.123000, and the predictions give"),
    (other_mean, r"metrics\.csv: the AUROC of .* is 0\.123000, and the predictions give"),
    (other_interval, r"metrics\.csv is not what these runs give: make report CONFIG=tiny\."),
    (other_ablations, r"AUROC of soft, deit_tiny-resnet50 is not in the ablations\.csv"),
    (other_kept, r"cka\.json: its table was made from other predictions\."),
    (other_seed, r"seeds\.csv: the AUROC of .*, 9, all is not in the runs\."),
    (no_table, r"cannot be read: The file .*seeds\.csv does not exist\."),
    (other_published, r"is of another run than student/.*: make publish\."),
]


@pytest.mark.parametrize(("spoil", "sentence"), REFUSED, ids=[s.__name__ for s, _ in REFUSED])
def test_what_does_not_belong_together_is_not_packed(study, spoil, sentence):
    spoil(study)
    with pytest.raises(StudyError, match=sentence):
        release.pack(study / f"config/{NAME}.yaml", root=study)
    assert not (study / "dist").exists()


class TestVerify:
    def test_a_release_verifies(self, packed, crops_dir, capsys):
        status, said = outcome(packed, capsys, "--faces", "4", "--crops", str(crops_dir))
        assert status == 0
        assert said.strip().endswith(f"Verified: {packed.name}")
        assert "FAULT" not in said
        assert (
            len(re.findall(r"ok    faces of \S*student/.*: 4 faces, at most \d\.\de-\d\d", said))
            == 5
        )

    def test_sha256sum_agrees(self, packed, tmp_path):
        subprocess.run(["tar", "xzf", packed, "-C", tmp_path], check=True)
        command = ["sha256sum", "--check", "--strict", SUMS]
        done = subprocess.run(command, cwd=tmp_path / TOP, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        files = sum(path.is_file() for path in (tmp_path / TOP).rglob("*"))
        assert done.stdout.count(": OK") == files - 1

    def test_crops_of_another_study_are_told(self, packed, crops_dir, tmp_path, capsys):
        other = shutil.copytree(crops_dir, tmp_path / "crops")
        with open(other / "manifest.csv", "a") as file:
            file.write("\n")
        status, said = outcome(packed, capsys, "--faces", "2", "--crops", str(other))
        assert status == 1
        assert "crops does not hold the crops that the run was made on" in said

    def test_an_unpacked_run_predicts(self, opened, crops_dir):
        predictor = load_predictor(opened / RUN)
        own = read_csv(opened / RUN / "predictions.csv").head(6)
        images = [read_rgb(crops_dir / f"{name}.png") for name in own["image_id"]]
        shown = [see_cropped(image, predictor.spec).image for image in images]
        expected = own[list(predictor.spec.heads)].to_numpy()
        assert np.ptp(expected) > 1e-3
        np.testing.assert_allclose(predictor.score(np.stack(shown)), expected, atol=1e-5)


def flip(path):
    """Turn one bit of the last byte, which in weights is of a tensor."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def flip_weights(top):
    flip(top / WEIGHTS)


def flip_figure(top):
    flip(top / f"figures/{NAME}/auroc.png")


def drop_figure(top):
    (top / f"figures/{NAME}/auroc.png").unlink()


def drop_weights_of(top):
    (top / WEIGHTS).unlink()


def add_file(top):
    (top / RUN / "checkpoint.pt").write_bytes(b"x")


def bad_sums(top):
    path = top / SUMS
    path.write_text(path.read_text().replace("  LICENSE", " LICENSE"))


UNSUMMED = [
    (flip_weights, [f"{WEIGHTS} is not as {SUMS} says", "is not the file that release.json"]),
    (flip_figure, [f"figures/{NAME}/auroc.png is not as {SUMS} says"]),
    (drop_figure, [f"figures/{NAME}/auroc.png is in {SUMS} and missing"]),
    (drop_weights_of, [f"{WEIGHTS} is in {SUMS} and missing", "It lacks model.safetensors"]),
    (add_file, [f"{RUN}/checkpoint.pt is not in {SUMS}"]),
    (bad_sums, [f"{SUMS} has a line that is none", "LICENSE is not in"]),
    (other_table, [f"seeds.csv is not as {SUMS} says", "and the predictions give"]),
]


@pytest.mark.parametrize(("spoil", "words"), UNSUMMED, ids=[s.__name__ for s, _ in UNSUMMED])
def test_what_was_changed_after_packing_is_named(opened, tmp_path, capsys, spoil, words):
    spoil(opened)
    status, said = outcome(again(opened, tmp_path / "b.tar.gz", sums=False), capsys)
    assert status == 1
    for sentence in words:
        assert sentence in said
    assert re.search(r"\nNot verified, \d faults?: b\.tar\.gz\n$", said)


def record(top, digest):
    """Make release.json say that these are the weights."""
    path = top / "release.json"
    content = json.loads(path.read_text())
    for run in content["runs"]:
        if f"runs/{NAME}/{run['folder']}/model.safetensors" == digest:
            run["weights_sha256"] = sha256(top / digest)
    path.write_text(json.dumps(content))


def forge_teacher(top):
    flip(top / TEACHERS)
    record(top, TEACHERS)


def more_tensors(top):
    weights = load_file(top / WEIGHTS)
    save_file(weights | {"extra": weights["head.bias"].clone()}, top / WEIGHTS)
    record(top, WEIGHTS)


def fewer_tensors(top):
    weights = load_file(top / WEIGHTS)
    del weights["head_dist.weight"]
    save_file(weights, top / WEIGHTS)
    record(top, WEIGHTS)


def no_tensors(top):
    (top / WEIGHTS).write_bytes(b"\x80\x04pickle")
    record(top, WEIGHTS)


def change_predictions(top):
    path = top / RUN / "predictions.csv"
    table = read_csv(path)
    table.assign(probability=1 - table["probability"]).to_csv(path, index=False)


def drop_run(top):
    shutil.rmtree(top / RUN)


def hide_run(top):
    path = top / "release.json"
    content = json.loads(path.read_text())
    content["runs"] = [run for run in content["runs"] if run["folder"] != TAUGHT]
    path.write_text(json.dumps(content))


def break_run(top):
    (top / RUN / "history.csv").write_text("")


def break_params(top):
    (top / RUN / "params.json").write_text("[]")


def lead_out(top):
    change_json(top / "release.json", config="../tiny")


def drop_card(top):
    (top / "MODEL_CARD.md").unlink()


def break_config(top):
    (top / f"config/{NAME}.yaml").write_text("seeds: 3")


FORGED = [
    (forge_teacher, "is not the file that student/deit_tiny-resnet50/seed0 was made with"),
    (more_tensors, f"{TAUGHT}/model.safetensors does not load: RuntimeError"),
    (fewer_tensors, f"{TAUGHT}/model.safetensors does not load: RuntimeError"),
    (no_tensors, f"{TAUGHT}/model.safetensors does not load: SafetensorError"),
    (change_predictions, "seeds.csv: the AUROC of deit_tiny-resnet50, 0, all is"),
    (other_table, "seeds.csv: the AUROC of"),
    (other_mean, "metrics.csv: the AUROC of"),
    (other_ablations, "ablations.csv: the AUROC of soft"),
    (other_kept, "cka.json: its table was made from other predictions"),
    (other_rate, "was made with learning_rate 0.5"),
    (drop_run, f"release.json and the folders differ on {TAUGHT}"),
    (hide_run, f"The run {TAUGHT} is missing"),
    (break_run, f"{TAUGHT} is no finished run: EmptyDataError"),
    (break_params, f"{TAUGHT} is no finished run"),
    (lead_out, "release.json names no config"),
    (drop_card, "MODEL_CARD.md is missing"),
    (break_config, "FAULT config"),
]


@pytest.mark.parametrize(("spoil", "sentence"), FORGED, ids=[s.__name__ for s, _ in FORGED])
def test_what_checksums_cannot_tell_is_named(opened, tmp_path, capsys, spoil, sentence):
    """The checksums are made anew, as a forger would."""
    spoil(opened)
    status, said = outcome(again(opened, tmp_path / "b.tar.gz"), capsys)
    assert status == 1
    assert sentence in said
    assert "ok    checksums" in said


def test_weights_that_did_not_predict_are_told_by_faces_alone(opened, tmp_path, crops_dir, capsys):
    other_student(opened)
    record(opened, WEIGHTS)
    bundle = again(opened, tmp_path / "b.tar.gz")
    assert outcome(bundle, capsys)[0] == 0
    status, said = outcome(bundle, capsys, "--faces", "3", "--crops", str(crops_dir))
    assert status == 1
    assert said.count("FAULT") == 1
    assert f"FAULT faces of {TAUGHT}: 3 faces, at most" in said


def member(name, kind=tarfile.REGTYPE, data=b"x", link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    return info, data if kind == tarfile.REGTYPE else b""


ATTACKS = {
    "absolute": ("{tmp}/out", tarfile.REGTYPE, "The name is absolute"),
    "parent": (f"{TOP}/../../out", tarfile.REGTYPE, "leads out of its folder"),
    "backslash": (f"{TOP}\\..\\out", tarfile.REGTYPE, "backslash"),
    "control": (f"{TOP}/a\nb", tarfile.REGTYPE, "control characters"),
    "symlink": (f"{TOP}/LICENSE2", tarfile.SYMTYPE, "a link, a folder, a device"),
    "hardlink": (f"{TOP}/LICENSE2", tarfile.LNKTYPE, "a link, a folder, a device"),
    "device": (f"{TOP}/null", tarfile.CHRTYPE, "a link, a folder, a device"),
    "pipe": (f"{TOP}/pipe", tarfile.FIFOTYPE, "a link, a folder, a device"),
    "folder": (f"{TOP}/empty", tarfile.DIRTYPE, "a link, a folder, a device"),
    "twice": (f"{TOP}/LICENSE", tarfile.REGTYPE, "It is there twice"),
    "twice, other case": (f"{TOP}/license", tarfile.REGTYPE, "It is there twice"),
    "in a file": (f"{TOP}/LICENSE/x", tarfile.REGTYPE, "It is there twice"),
    "no folder": ("LICENSE", tarfile.REGTYPE, "does not lie in the release's folder"),
    "dot": (f"./{TOP}/x", tarfile.REGTYPE, "does not lie in the release's folder"),
    "second top": ("other/x", tarfile.REGTYPE, "It holds 2 folders at its top"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_member_that_is_no_plain_file_inside_is_refused(packed, tmp_path, capsys, attack):
    name, kind, sentence = ATTACKS[attack]
    name = name.format(tmp=tmp_path)
    bundle, into = tmp_path / "b.tar.gz", tmp_path / "into"
    with tarfile.open(packed) as old, tarfile.open(bundle, "w:gz") as new:
        for info in old.getmembers():
            new.addfile(info, old.extractfile(info))
        info, data = member(name, kind, link=str(tmp_path / "secret"))
        new.addfile(info, io.BytesIO(data))
    status, said = outcome(bundle, capsys)
    assert status == 1
    assert f"FAULT archive: {'' if 'folders' in sentence else 'Refused'}" in said
    assert sentence in said
    with pytest.raises(StudyError, match=re.escape(sentence)):
        unpack(bundle, into / "deep")
    assert not (tmp_path / "out").exists()
    assert not (into / "out").exists()
    assert not any(path.is_symlink() for path in into.rglob("*"))


def test_every_bad_member_is_named(tmp_path, capsys):
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        for name in ("/etc/x", f"{TOP}/good", "../y"):
            info, data = member(name)
            tar.addfile(info, io.BytesIO(data))
    _, said = outcome(tmp_path / "b.tar.gz", capsys)
    assert said.count("Refused") == 2
    assert "Not verified, 2 faults" in said


def test_sizes_that_no_release_has_are_refused(tmp_path, monkeypatch):
    bundle = tmp_path / "b.tar.gz"
    with tarfile.open(bundle, "w:gz") as tar:
        info, data = member(f"{TOP}/zeros", data=bytes(300_000))
        tar.addfile(info, io.BytesIO(data))
    monkeypatch.setattr(release_archive, "SMALL", 100_000)
    with pytest.raises(StudyError, match="as a bomb does"):
        unpack(bundle, tmp_path / "a")
    monkeypatch.undo()
    monkeypatch.setattr(release_archive, "LARGEST_MEMBER", 200_000)
    with pytest.raises(StudyError, match="300000 bytes are more than any file"):
        unpack(bundle, tmp_path / "b")
    monkeypatch.undo()
    monkeypatch.setattr(release_archive, "MOST_MEMBERS", 0)
    with pytest.raises(StudyError, match="more than 0 members"):
        unpack(bundle, tmp_path / "c")


def test_a_header_that_fills_the_memory_is_refused(tmp_path):
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 2**30
    with gzip.open(tmp_path / "b.tar.gz", "wb") as file:
        file.write(info.tobuf())
        file.write(bytes(2**20))
    with pytest.raises(StudyError, match="A header of"):
        unpack(tmp_path / "b.tar.gz", tmp_path / "a")


def cut(data):
    return data[: len(data) // 2]


def damaged(data):
    return data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]


def longer(data):
    return gzip.compress(gzip.decompress(data) + b"hidden")


def empty(data):
    return b""


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (cut, "is no whole .tar.gz"),
        (damaged, "is no whole .tar.gz"),
        (longer, "Behind the last member there is something more"),
        (empty, "is no whole .tar.gz"),
        (lambda data: b"no archive", "is no whole .tar.gz"),
    ],
)
def test_a_file_that_is_no_whole_archive_is_told(packed, tmp_path, capsys, change, sentence):
    (tmp_path / "b.tar.gz").write_bytes(change(packed.read_bytes()))
    assert release.main(["verify", str(tmp_path / "b.tar.gz")]) == 1
    assert sentence in "".join(capsys.readouterr())


def test_no_file_is_one_sentence(tmp_path, capsys):
    assert release.main(["verify", str(tmp_path / "none.tar.gz")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_fewer_than_no_faces_is_one_sentence(packed, capsys):
    assert release.main(["verify", str(packed), "--faces", "-1"]) == 1
    assert capsys.readouterr().err.strip().endswith("must be 0 or more, not -1.")


def test_checksums_are_as_sha256sum_writes_them():
    assert checksum_lines({"b": "22", "a": "11"}) == "11  a\n22  b\n"


def test_the_temporary_folder_is_removed(packed, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert verify(packed, say=lambda line: None) == []
    assert not list(tmp_path.iterdir())


class TestCard:
    def test_its_front_matter_has_the_tables_numbers(self, opened):
        text = (opened / "MODEL_CARD.md").read_text()
        matter = yaml.safe_load(text.split("---\n")[1])
        assert matter["license"] == "mit"
        assert matter["pipeline_tag"] == "image-classification"
        assert {"pain", "not-a-medical-device"} <= set(matter["tags"])
        assert matter["metrics"] == ["roc_auc"]
        assert len(matter["datasets"]) == 1
        table = read_csv(opened / f"results/{NAME}/metrics.csv").query("metric == 'auroc'")
        wide = table.set_index(["arm", "contrast"])["estimate"]
        arms = ["deit_tiny-none", "deit_tiny-resnet50"]
        for arm, model in zip(arms, matter["model-index"], strict=True):
            (result,) = model["results"]
            values = [metric["value"] for metric in result["metrics"]]
            assert values == pytest.approx([wide[arm, c] for c in CONTRASTS], abs=1e-4)

    def test_it_says_how_to_use_it_and_what_it_is_not(self, opened):
        text = (opened / "MODEL_CARD.md").read_text()
        assert "This is no medical device" in text
        assert f"-m helpers.predict PICTURES --model {TOP}/{RUN}\n" in text
        assert "python -m helpers.predict" in text
        for heading in ("Model card", "Evaluation", "For whom it fails", "Limits", "Licences"):
            assert f"\n## {heading}\n" in text
        assert sha256(opened / WEIGHTS) in text

    @pytest.mark.parametrize(
        ("crops", "dataset", "licence"),
        [
            ("nowhere/standin", "pain-distillation-standin", "MakeHuman"),
            ("nowhere/synpain", "TaatiTeam/SynPAIN", "tagged MIT on the hub"),
            ("nowhere/own", "own", "does not know the licence"),
        ],
    )
    def test_data_and_their_licences_are_named(self, study, tmp_path, crops, dataset, licence):
        for path in (study / "runs").rglob("params.json"):
            change_json(path, crops_dir=crops, initialisation={"init": "imagenet"})
        top = unpack(release.pack(study / f"config/{NAME}.yaml", root=study), tmp_path / "o")
        text = (top / "MODEL_CARD.md").read_text()
        assert yaml.safe_load(text.split("---\n")[1])["datasets"] == [dataset]
        assert licence in (top / "DATA_LICENCES.md").read_text()
        assert "were trained from weights of others" in text


class TestCitation:
    @pytest.fixture
    def citation(self):
        return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

    def test_it_is_of_this_version_and_licence(self, citation):
        assert citation["version"] == PROJECT["version"]
        assert citation["license"] == PROJECT["license"]
        licence = (ROOT / "LICENSE").read_text()
        assert licence.startswith(f"{citation['license']} License")
        assert citation["authors"] == [{"name": "The authors of this repository"}]
        assert citation["authors"][0]["name"] in licence

    def test_it_has_the_fields_of_the_format(self, citation):
        assert citation["cff-version"] == "1.2.0"
        assert citation["type"] == "software"
        assert {"message", "title", "abstract", "keywords"} <= set(citation)
        assert "medical device" in citation["abstract"]
        kinds = {"conference-paper", "data"}
        for reference in citation["references"]:
            assert reference["type"] in kinds
            assert {"title", "authors", "year"} <= set(reference)
            for author in reference["authors"]:
                assert set(author) in ({"family-names", "given-names"}, {"name"})

    def test_what_it_refers_to_is_what_the_study_cites(self, citation):
        written = (ROOT / "notebooks/05_compare_teachers.ipynb").read_text().lower()
        plain = re.sub(r'\\n",\s+"\s*', " ", written)
        for reference in citation["references"]:
            assert reference["title"].lower() in plain
            assert reference["authors"][0]["family-names"].lower() in plain
        assert [r["doi"] for r in citation["references"] if "doi" in r] == ["10.5683/SP3/WCXMAP"]
