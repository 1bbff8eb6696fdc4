"""Who answers for the teacher: folds, and the shuffled control."""

import numpy as np
import pytest
import torch

from helpers.training.experiments import distil_student, make_teacher
from helpers.training.faces import load_faces
from helpers.training.runs import read_run
from helpers.training.teachers import FoldTeachers, ShuffledTeacher, fold_of


def knows(labels):
    """A teacher that answers +2 or -2, by the label of each face."""
    return lambda images, rows: torch.from_numpy(np.where(labels[rows], 2.0, -2.0))


VIEWS = torch.zeros(16, 3, 1, 1)


def batches(count, size=16, faces=64, seed=0):
    """As many batches of rows, as an epoch after the other deals them."""
    rng = np.random.default_rng(seed)
    dealt = [rng.permutation(faces).reshape(-1, size) for _ in range(-(-count * size // faces))]
    return np.concatenate(dealt)[:count]


def test_shuffled_answers_are_the_batchs_own_in_another_order():
    confidence = np.random.default_rng(0).normal(size=64)
    teacher = ShuffledTeacher(lambda images, rows: torch.from_numpy(confidence[rows]), 0)
    moved = 0
    for rows in batches(40):
        said = teacher(VIEWS, rows).numpy()
        assert sorted(said) == sorted(confidence[rows])
        moved += (said != confidence[rows]).sum()
    # a random permutation leaves one of its places as it was, on average
    assert moved == pytest.approx(40 * 15, abs=30)


def test_shuffled_answers_hold_nothing_of_the_face():
    """With k of n faces in pain, a shuffled truth is wrong for 2 k (n - k) / n² of them."""
    labels = np.arange(64) % 4 == 0
    teacher, wrong, expected, of_pain = ShuffledTeacher(knows(labels), 0), [], [], []
    for rows in batches(2000):
        said = teacher(VIEWS, rows).numpy() > 0
        share = labels[rows].mean()
        wrong.append((said != labels[rows]).mean())
        expected.append(2 * share * (1 - share))
        of_pain.append(said[labels[rows]].mean() - share if labels[rows].any() else 0)
    assert np.mean(wrong) == pytest.approx(np.mean(expected), abs=0.01)
    assert np.mean(of_pain) == pytest.approx(0, abs=0.01)


def test_shuffling_is_drawn_by_the_run_and_the_batch_alone():
    rng = np.random.default_rng(0)
    confidence = rng.normal(size=64)

    def answers(seed, order):
        teacher = ShuffledTeacher(lambda images, rows: torch.from_numpy(confidence[rows]), seed)
        return {place: teacher(VIEWS, dealt[place]) for place in order}

    dealt = batches(6)
    first, again = answers(0, range(6)), answers(0, [5, 2, 0, 1, 4, 3])
    assert all(torch.equal(first[place], again[place]) for place in range(6))
    other = answers(1, range(6))
    assert not any(torch.equal(first[place], other[place]) for place in range(6))
    teacher = ShuffledTeacher(lambda images, rows: torch.arange(16), 0)
    assert len({tuple(teacher(VIEWS, rows).tolist()) for rows in dealt}) == 6


def test_a_student_cannot_learn_what_a_shuffled_teacher_says(
    student_parameters, teacher_run, tmp_path, monkeypatch
):
    p = student_parameters
    p.teacher, p.teacher_dir, p.teacher_labels = "resnet50", str(teacher_run), "shuffled"
    faces = load_faces(p.crops_dir, p.image_size)
    labels = faces.labels.numpy() > 0
    monkeypatch.setattr(
        "helpers.training.teachers.FrozenTeacher.__call__",
        lambda self, images, rows: torch.from_numpy(np.where(labels[rows], 2.0, -2.0)).float(),
    )
    p.student_epochs, p.lr_step = 4, 10
    run = distil_student(p, tmp_path / "shuffled")
    # two faces of eight are in pain, and 2 k (n - k) / n² of the answers then wrong
    assert run.history["teacher_disagreement"].mean() == pytest.approx(0.375, abs=0.1)
    p.teacher_labels = "online"
    told = distil_student(p, tmp_path / "online")
    assert (told.history["teacher_disagreement"] == 0).all()
    lost, learnt = (r.history["train_loss_distillation"].iloc[-1] for r in (run, told))
    # nobody can do better than the entropy of one in four, 0.56, but by luck
    assert lost > 0.45
    assert learnt < 0.2


def test_each_fold_answers_for_its_own_faces():
    folds = np.array([0, 1, 2, 2, 1, 0, 0])
    asked = []

    def teacher(fold):
        def answer(images, rows):
            asked.append((fold, rows.tolist()))
            return images[:, 0, 0, 0] + 100 * fold

        return answer

    rows = np.array([6, 1, 3, 4])
    images = torch.tensor([6.0, 1, 3, 4])[:, None, None, None]
    said = FoldTeachers([teacher(fold) for fold in range(3)], folds)(images, rows)
    assert said.tolist() == [6, 101, 203, 104]
    assert asked == [(0, [6]), (1, [1, 4]), (2, [3])]


def test_folds_hold_whole_people_and_are_of_one_size(crops_dir):
    faces = load_faces(crops_dir, 32)
    folds = fold_of(faces)
    table = faces.table.assign(fold=folds)
    assert (table.groupby("identity")["fold"].nunique() == 1).all()
    train = table["split"] == "train"
    assert (folds[~train] == -1).all()
    sizes = table[train].groupby("fold")["identity"].nunique()
    assert sizes.sum() == 16
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("labels", ["online", "shuffled"])
def test_the_teacher_is_frozen_whoever_passes_its_answers_on(
    student_parameters, teacher_run, labels
):
    student_parameters.teacher_labels = labels
    faces = load_faces(student_parameters.crops_dir, student_parameters.image_size)
    teacher, readings = make_teacher(student_parameters, read_run(teacher_run), faces)
    frozen = teacher.teacher
    assert not frozen.model.training
    assert not any(value.requires_grad for value in frozen.model.parameters())
    assert len(readings) == 1
