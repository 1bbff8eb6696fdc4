"""The benchmark scripts: every variant runs, and the figures are computed as they are named."""

import importlib
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.devices import precision
from helpers.errors import StudyError
from helpers.files import ROOT
from helpers.training import augment, feed
from helpers.training.faces import load_faces
from helpers.training.inference import predict
from helpers.training.low_precision import settle_precision
from helpers.training.runs import read_run
from helpers.training.teachers import FrozenTeacher


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Import the scripts as they import one another."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def setting(crops_dir, tmp_path_factory):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    variants = importlib.import_module("distillation_variants")
    sys.path.remove(str(ROOT / "benchmarks"))
    folder = tmp_path_factory.mktemp("benchmark")
    # 16 of its 32 training crops: two steps an epoch
    assert variants.take_crops(crops_dir, folder / "crops", 16) == 16
    setting = variants.Setting(
        crops_dir=str(folder / "crops"),
        teacher_dir=str(folder / "teacher"),
        device="cpu",
        image_size=32,
        batch_size=8,
        threads=1,
    )
    torch.set_num_threads(1)
    variants.make_teacher(setting)
    return setting


VARIANTS = ["reference", "timm", "timm_channels_last", "live", "replayed", "live_ready"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_takes_as_many_steps(setting, variant, monkeypatch):
    steps = []
    step = torch.optim.Adam.step

    def count(self, *arguments, **options):
        steps.append(self)
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", count)
    variants = importlib.import_module("distillation_variants")
    # given a precision, timm's variants take no trial steps
    result = variants.measure(variant, replace(setting, precision="float32"))
    assert result["seconds"] > 0
    assert result["precision"] in ("float32", "bfloat16")
    # one epoch to warm up and one that is timed, of two batches each
    assert len(steps) == 4
    assert variants.engine.Feed is feed.Feed


def test_the_teacher_of_the_benchmark_is_sure_and_so_answers_in_low_precision(setting):
    run, faces = read_run(setting.teacher_dir), load_faces(setting.crops_dir, 32)
    cpu = torch.device("cpu")
    logits = predict(FrozenTeacher(run, cpu).model, faces.images, 32, torch.float32)
    assert logits.min() > 50
    assert settle_precision(run, faces, cpu)[0] == precision(cpu, amp=True)


def test_crops_are_taken_from_where_they_lie(crops_dir, tmp_path):
    variants = importlib.import_module("distillation_variants")
    assert variants.take_crops(crops_dir, tmp_path / "deep/er", 1000) == 32
    taken, all_of_them = (load_faces(folder, 32) for folder in (tmp_path / "deep/er", crops_dir))
    rows = pd.Index(all_of_them.table["image_id"]).get_indexer(taken.table["image_id"])
    assert torch.equal(taken.images, all_of_them.images[rows])
    assert not taken.table["image_id"].duplicated().any()


def test_ready_batches_are_those_of_the_timed_epoch(crops_dir):
    variants = importlib.import_module("distillation_variants")
    faces = load_faces(crops_dir, 32)
    arguments = (faces, faces.rows("train"), 0, 8, 32, torch.device("cpu"))
    plain, ready = feed.Feed(*arguments), variants.ReadyFeed(*arguments)
    for epoch in (1, 2):
        for mine, theirs in zip(ready.batches(epoch), plain.batches(2), strict=True):
            assert torch.equal(mine.images, theirs.images)
            assert np.array_equal(mine.rows, theirs.rows)


def test_ratios_are_taken_within_a_repetition():
    script = importlib.import_module("distillation_epoch")
    about = {"device": "cpu", "threads": 1, "image_size": 64, "batch_size": 8, "images": 16}
    # the machine is twice as slow in the second repetition
    speeds = {"reference": (10, 5, 10), "live": (30, 15, 33), "live_ready": (40, 20, 40)}
    runs = pd.DataFrame(
        about
        | {"variant": variant, "repeat": repeat, "images_per_second": float(speed)}
        | {"precision": "float32", "memory_mb": 100.0 + repeat}
        for variant, values in speeds.items()
        for repeat, speed in enumerate(values)
    )
    summary = script.summarise(runs).set_index("variant")
    live = summary.loc["live"]
    assert (live["images_per_second"], live["repeats"], live["memory_mb"]) == (30, 3, 102)
    ratio = [live[f"ratio_to_reference{end}"] for end in ("", "_least", "_most")]
    assert ratio == pytest.approx([3, 3, 3.3])
    assert live["share_of_ready"] == pytest.approx(0.75)
    assert np.isnan(summary.loc["reference", "share_of_ready"])
    words = script.in_words(summary.reset_index())
    assert "3.00 [3.00, 3.30]" in words
    figure = script.draw(summary.reset_index())
    assert [bar.get_width() for bar in figure.axes[0].patches] == [10, 30, 40]


def test_memory_is_that_of_a_process_and_its_children():
    script = importlib.import_module("distillation_epoch")
    eat = "b = bytearray(50 << 20); b[::4096] = b'x' * len(b[::4096])"
    code = f"import os, time; os.fork(); {eat}; print(flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        for _ in range(2):
            process.stdout.readline()
        memory = script.tree_memory(process.pid)
        assert np.isnan(memory) or 100 < memory < 150
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert np.isnan(script.tree_memory(process.pid))


def test_the_benchmark_is_taken_up_where_it_was_and_keeps_other_settings(
    crops_dir, tmp_path, monkeypatch
):
    script = importlib.import_module("distillation_epoch")
    asked = []

    def run_variant(variant, setting, folder, cores):
        asked.append((setting.image_size, variant))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return {"seconds": 2.0, "precision": "float32", "memory_mb": 1.0}

    monkeypatch.setattr(script, "run_variant", run_variant)
    monkeypatch.setattr(script, "make_teacher", lambda setting: None)
    arguments = f"--crops-dir {crops_dir} --repeats 2 --variants reference live --device cpu "
    arguments += f"--results-dir {tmp_path} --figures-dir {tmp_path} --settings "
    with pytest.raises(KeyboardInterrupt):
        script.main([*arguments.split(), "32x8"])
    summary = script.main([*arguments.split(), "32x8"])
    # the second repetition goes the other way round
    assert [variant for _, variant in asked] == ["reference", "live", "live", "live", "reference"]
    assert list(summary["images_per_second"]) == [16, 16]
    both = script.main([*arguments.split(), "48x16"])
    assert len(asked) == 9
    assert list(both["image_size"]) == [32, 32, 48, 48]
    assert len(script.main([*arguments.split(), "32x8"])) == 4
    assert len(asked) == 13  # a complete one is measured anew
    for name in ("distillation_epoch.csv", "distillation_epoch.svg", "distillation_epoch.png"):
        assert (tmp_path / name).is_file()
    with pytest.raises(StudyError, match=r"32 training crops .* do not fill a batch of 64"):
        script.main([*arguments.split(), "32x64"])


def test_a_variant_is_measured_in_a_process_of_its_own(setting, tmp_path):
    script = importlib.import_module("distillation_epoch")
    result = script.run_variant("reference", setting, tmp_path, some_cores(script))
    assert result["seconds"] > 0
    assert result["precision"] == "float32"
    assert np.isnan(result["memory_mb"]) or result["memory_mb"] > 100


def test_a_variant_that_fails_says_why(setting, tmp_path, monkeypatch):
    script = importlib.import_module("distillation_epoch")
    (tmp_path / "distillation_variants.py").write_text("raise KeyError('no such thing')")
    monkeypatch.setattr(script, "__file__", str(tmp_path / "distillation_epoch.py"))
    with pytest.raises(StudyError, match="variant live ended with 1: KeyError: 'no such thing'"):
        script.run_variant("live", setting, tmp_path, some_cores(script))


def some_cores(script) -> list[int]:
    return list(script.os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


class TestAblation:
    def test_a_change_is_one_thing(self):
        script = importlib.import_module("scratch_ablation")
        config = {"batch_size": 16, "learning_rate": 3e-4}
        factors = [change.factor for change in script.changes(config, 20)]
        assert factors[0] == "none"
        assert set(factors[1:]) == set(
            "batch_size learning_rate warm_up clip_norm normalisation augmentation".split()
        )
        sizes = [c.recipe for c in script.changes(config, 20) if c.factor == "batch_size"]
        assert sizes == [(("batch_size", size),) for size in (8, 32, 64)]

    def test_augmentation_can_be_taken_away_and_comes_back(self, crops_dir):
        script = importlib.import_module("scratch_ablation")
        faces = load_faces(crops_dir, 32)
        usual = feed.draw_views(50, 0, 1)

        def views(name):
            with script.applied(script.Change("augmentation", name), faces):
                return feed.draw_views(50, 0, 1)

        for name in ("none", "flip"):
            still = views(name)
            assert torch.equal(still.crop, torch.tensor([[0.0, 0, 1, 1]]).expand(50, 4))
            assert not still.angle.any()
            assert (still.colour == 1).all()
            assert (still.flip < 0).any() == (name == "flip")
        strong = views("strong")
        assert strong.crop[:, 2:].prod(1).min() < 0.4
        assert (strong.colour - 1).abs().max() > 0.3
        assert torch.equal(feed.draw_views(50, 0, 1).crop, usual.crop)

    def test_normalisation_by_the_training_set_gives_it_mean_0_and_variance_1(self, crops_dir):
        script = importlib.import_module("scratch_ablation")
        faces = load_faces(crops_dir, 32)
        change = script.Change("normalisation", "training set")
        with script.applied(change, faces):
            pixels = augment.plain_view(faces.images[faces.rows("train")], faces.images.shape[-1])
        for channel in pixels.transpose(0, 1):
            assert channel.mean().item() == pytest.approx(0, abs=1e-3)
            assert channel.std().item() == pytest.approx(1, abs=1e-3)
        assert augment.IMAGENET_MEAN == (0.485, 0.456, 0.406)

    def test_it_runs_and_does_not_repeat_what_is_done(self, crops_dir, tmp_path, monkeypatch):
        script = importlib.import_module("scratch_ablation")
        arguments = f"--crops-dir {crops_dir} --models deit_tiny --factors clip_norm --epochs 1 "
        arguments += f"--image-size 32 --runs-dir {tmp_path}/runs --results-dir {tmp_path}"
        table = script.main(arguments.split())
        assert list(table["factor"]) == ["none", "clip_norm"]
        written = pd.read_csv(tmp_path / "scratch_ablation.csv")
        folders = ("none/the_recipe", "clip_norm/none")
        for row, change in zip(written.itertuples(), folders, strict=True):
            run = read_run(tmp_path / "runs/deit_tiny" / change / "seed0")
            assert row.validation_auroc == pytest.approx(run.metrics["validation"]["auroc"])
            clip = run.params["parameters"]["clip_norm"]
            assert clip is None if "clip" in change else clip == 1
        from helpers.training.engine import Trainer

        def never(trainer):
            raise AssertionError("trained again")

        monkeypatch.setattr(Trainer, "fit", never)
        assert script.main(arguments.split()).equals(table)
        with pytest.raises(StudyError, match="Unknown factor 'luck': choose from augmentation,"):
            script.main([*arguments.split(), "--factors", "luck"])


@pytest.mark.parametrize(("seeds", "luck"), [(1, 0.0), (3, 0.15)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(seeds, luck):
    """Of 300 studies; with several seeds, intervals of the faces alone would fail."""
    coverage = importlib.import_module("coverage")
    found = coverage.coverage(300, seeds, luck)
    assert found["coverage_low"] <= 0.95 <= found["coverage_high"]
    assert found["coverage"] > 0.91
    if seeds > 1:
        assert found["coverage_of_identities_alone"] < 0.9


def test_the_cost_of_a_study_is_its_faces_over_the_measured_rates():
    cost = importlib.import_module("study_cost")
    config = {"seeds": [0, 1], "split_ratios": [0.5, 0.25, 0.25]}
    config |= {"teacher_epochs": 3, "student_epochs": 1}
    # 10 pairs were measured, 1,000 are to be done: 1,000 faces to train on, 500 and 500 beside.
    rates = {"training_rate": 10.0, "scoring_rate": 100.0, "bytes": 1e9, "prediction_bytes": 1e5}
    rows = [{"stage": "01 prepare", "name": "", "seconds": 36.0, "bytes": 1e7}]
    rows += [{"stage": "teacher", "name": "swin"} | rates]
    table = pd.DataFrame(cost.costs(rows, config, 1000, 10)).set_index("stage")
    assert table.loc["01 prepare", "hours"] == pytest.approx(1.0)
    assert table.loc["01 prepare", "gb"] == pytest.approx(1.0)
    # Three epochs of 1,000 faces at 10 a second, of 500 at 100 a second, then all 2,000 once.
    assert table.loc["teacher", "hours_a_run"] * 3600 == pytest.approx(300 + 15 + 20)
    assert table.loc["teacher", "gb"] == pytest.approx(2 * (1 + 1980 * 1e-4))
    assert table.loc["05 compare", "hours"] * 3600 == pytest.approx(25 * 500 * 2 / 100)
    assert table.loc["all", "hours"] == pytest.approx(table["hours"].iloc[:-1].sum())


def test_published_rates_cost_a_pupil_its_own_training_and_its_teachers_answers():
    cost = importlib.import_module("study_cost")
    rates = pd.DataFrame({"model": ["resnet50", "deit_tiny"], "image_size": 224})
    rates = rates.assign(training_rate=[100.0, 300.0], scoring_rate=[600.0, 900.0])
    config = {"teachers": ["resnet50"], "students": ["deit_tiny"], "image_size": 224}
    rows = {row["name"]: row for row in cost.published(rates, config)}
    assert list(rows) == ["resnet50", "deit_tiny-none", "deit_tiny-resnet50"]
    assert rows["resnet50"]["training_rate"] == 100
    assert rows["deit_tiny-none"]["training_rate"] == pytest.approx(300)
    # 1,800 faces: 6 s to learn from, 3 s to be asked of the teacher.
    assert 1800 / rows["deit_tiny-resnet50"]["training_rate"] == pytest.approx(9)
    assert rows["deit_tiny-resnet50"]["scoring_rate"] == 900
    with pytest.raises(StudyError, match="no published rates of swin"):
        cost.published(rates, config | {"teachers": ["swin"]})
    with pytest.raises(StudyError, match="not 112"):
        cost.published(rates, config | {"image_size": 112})


def test_readme_has_the_committed_cost_of_the_study():
    cost = importlib.import_module("study_cost")
    table = cost.planning_table(ROOT / "results/benchmarks/study_cost_synpain.csv")
    assert table in (ROOT / "README.md").read_text()


def small_study(folder, probability=0.5, seconds=(1.5, 2.5)):
    """Write what `slurm_study` compares of a study of one run."""
    run, results = folder / "runs/small/teacher/resnet50/seed0", folder / "results/small"
    for each in (run, results):
        each.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(b"weights")
    (run / "predictions.csv").write_text(f"probability\n{probability}\n")
    (run / "metrics.json").write_text(f'{{"auroc": 0.9, "train_seconds": {seconds[0]}}}')
    pd.DataFrame({"epoch": [1, 2], "seconds": seconds}).to_csv(run / "history.csv")
    pd.DataFrame({"auroc": [probability], "train_seconds": seconds[0]}).to_csv(results / "m.csv")
    return folder


def test_two_studies_are_the_same_when_all_but_their_times_are(tmp_path):
    slurm = importlib.import_module("slurm_study")
    here = small_study(tmp_path / "here")
    assert slurm.differences(here, small_study(tmp_path / "there", seconds=(9.5, 8.5))) == []
    run = "runs/small/teacher/resnet50/seed0"
    assert slurm.differences(here, small_study(tmp_path / "other", probability=0.6)) == [
        f"{run}/predictions.csv differs.",
        "results/small/m.csv differs.",
    ]
    (tmp_path / "there" / run / "model.safetensors").write_bytes(b"weightS")
    (tmp_path / "there" / run / "metrics.json").write_text('{"auroc": 0.8, "train_seconds": 1}')
    assert slurm.differences(here, tmp_path / "there") == [
        f"{run}/model.safetensors differs.",
        f"{run}/metrics.json differs.",
    ]
    assert slurm.differences(tmp_path, tmp_path) == ["There are no results."]


def test_a_run_that_began_anew_is_not_one_that_went_on(tmp_path):
    slurm = importlib.import_module("slurm_study")
    study = small_study(tmp_path / "study")
    (study / "log.txt").write_text("Trying to restart job 5.")
    assert slurm.resumed(study, [{"epoch": 1, "seconds": 1.5}]) == []
    anew = slurm.resumed(study, [{"epoch": 1, "seconds": 1.7}])
    assert anew == ["The killed run trained its finished epochs again."]
    assert slurm.resumed(study, []) == ["The job was not killed in the middle."]
    (study / "log.txt").write_text("")
    assert len(slurm.resumed(study, [{"epoch": 1, "seconds": 1.5}])) == 1
