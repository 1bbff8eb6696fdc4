"""The training loop under blows: kills, signals, full disks, losses that are no numbers."""

import errno
import os
import resource
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_training import EPOCHS, STEPS, do_in_step, same, tiny_trainer
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.errors import StudyError
from helpers.interrupts import Stopped
from helpers.training import checkpoints, engine
from helpers.training.checkpoints import NEWEST, PREVIOUS, read_checkpoint, write_checkpoint
from helpers.training.engine import Trainer
from helpers.training.faces import FaceStore, load_faces
from helpers.training.feed import Feed


@pytest.fixture(scope="module")
def faces(crops_dir):
    return load_faces(crops_dir, 32)


@pytest.fixture
def new_trainer(faces, tmp_path):
    def make(folder="run", store=None, **changes):
        return tiny_trainer(store or faces, tmp_path / folder, **changes)

    return make


@pytest.fixture
def undisturbed(new_trainer):
    trainer = new_trainer("undisturbed")
    trainer.fit()
    return trainer


class Killed(BaseException):
    """What nothing catches, like kill -9."""


def kill():
    raise Killed


def test_killed_at_any_step_and_resumed_it_ends_as_the_undisturbed_run(
    new_trainer, undisturbed, monkeypatch
):
    # a checkpoint after every step, and after every epoch alone
    for every, numbers in ((0.0, range(1, EPOCHS * STEPS + 1)), (1e9, (1, STEPS, STEPS + 2))):
        monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", every)
        for number in numbers:
            folder = f"run{number}-{every}"
            with monkeypatch.context() as patch:
                do_in_step(patch, number, kill)
                with pytest.raises(Killed):
                    new_trainer(folder).fit()
            with monkeypatch.context() as patch:
                done = do_in_step(patch, 0, None)
                resumed = new_trainer(folder)
                resumed.fit()
            lost = 0 if every == 0 else (number - 1) % STEPS
            assert len(done) == EPOCHS * STEPS - (number - 1) + lost
            assert same(undisturbed, resumed)


def test_another_seed_ends_elsewhere(new_trainer, undisturbed):
    other = new_trainer("other", seed=1)
    other.fit()
    assert (other.folder / "model.safetensors").read_bytes() != (
        undisturbed.folder / "model.safetensors"
    ).read_bytes()


def test_a_resumed_epoch_counts_the_time_of_its_first_part(new_trainer, monkeypatch):
    clock = SimpleNamespace(now=0.0)

    def tick():
        clock.now += 1.0

    monkeypatch.setattr(engine.time, "perf_counter", lambda: clock.now)
    step = Trainer._step
    monkeypatch.setattr(Trainer, "_step", lambda *all_: (tick(), step(*all_))[1])
    with monkeypatch.context() as patch:
        do_in_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Stopped):
            new_trainer().fit()
    clock.now = 1000.0
    assert list(new_trainer().fit()["seconds"]) == [STEPS, STEPS, STEPS]


def test_ctrl_c_stops_after_the_step_and_a_call_goes_on(new_trainer, undisturbed, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        done = do_in_step(patch, STEPS + 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Stopped, match=r"epoch 2, step 2 of 4; call again to go on") as caught:
            new_trainer().fit()
        assert len(done) == STEPS + 2
    assert isinstance(caught.value, KeyboardInterrupt)
    assert caught.value._render_traceback_() == [str(caught.value)]
    assert signal.getsignal(signal.SIGINT) is before
    with monkeypatch.context() as patch:
        done = do_in_step(patch, 0, None)
        resumed = new_trainer()
        resumed.fit()
        assert len(done) == EPOCHS * STEPS - (STEPS + 2)
    assert same(undisturbed, resumed)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_in_the_last_step_of_an_epoch_stops_after_the_epoch(new_trainer, monkeypatch):
    do_in_step(monkeypatch, STEPS, lambda: os.kill(os.getpid(), signal.SIGINT))
    trainer = new_trainer()
    with pytest.raises(Stopped, match=r"epoch 1, step 4 of 4"):
        trainer.fit()
    assert len(trainer.history) == 1


def test_sigterm_is_handed_on_after_the_checkpoint(new_trainer, undisturbed, monkeypatch):
    told = []

    def handler(number, frame):
        told.append((number, (new_trainer_folder / NEWEST).is_file()))

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with monkeypatch.context() as patch:
            do_in_step(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
            trainer = new_trainer()
            new_trainer_folder = trainer.folder
            with pytest.raises(Stopped):
                trainer.fit()
        assert told == [(signal.SIGTERM, True)]
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    resumed = new_trainer()
    resumed.fit()
    assert same(undisturbed, resumed)


@pytest.fixture
def ctrl_c():
    """Python's own handler: a shell that starts its job in the background has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_goes_through_at_once(ctrl_c, new_trainer, monkeypatch):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the step went on")

    do_in_step(monkeypatch, 2, twice)
    with pytest.raises(KeyboardInterrupt) as caught:
        new_trainer().fit()
    assert not isinstance(caught.value, Stopped)


def test_outside_of_the_main_thread_no_handler_is_touched(new_trainer, undisturbed, monkeypatch):
    seen, trainer = [], new_trainer()
    before = signal.getsignal(signal.SIGINT)
    do_in_step(monkeypatch, 2, lambda: seen.append(signal.getsignal(signal.SIGINT)))
    thread = threading.Thread(target=trainer.fit)
    thread.start()
    thread.join()
    assert seen == [before]
    assert same(undisturbed, trainer)


def a_state(mark: float) -> dict:
    return {"identity": {"a": 1}, "weights": torch.full((3000,), mark), "rows": [1, None, 2.5]}


def test_the_previous_checkpoint_is_kept_and_no_other(tmp_path):
    for mark in (1.0, 2.0, 3.0):
        write_checkpoint(tmp_path, a_state(mark))
    assert sorted(os.listdir(tmp_path)) == [PREVIOUS, NEWEST]
    for name, mark in ((NEWEST, 3.0), (PREVIOUS, 2.0)):
        state = torch.load(tmp_path / name, weights_only=True)
        assert torch.equal(state["weights"], torch.full((3000,), mark))


def test_the_bytes_are_on_the_disk_before_the_name_changes(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("fsync"), fsync(handle))[1])

    def renaming(self, target):
        events.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(type(tmp_path), "replace", renaming)
    write_checkpoint(tmp_path, a_state(1.0))
    write_checkpoint(tmp_path, a_state(2.0))
    assert events == ["fsync", NEWEST, "fsync", "fsync", PREVIOUS, NEWEST, "fsync"]


def test_any_byte_that_changed_is_noticed_or_does_not_matter(tmp_path, capsys):
    write_checkpoint(tmp_path, a_state(1.0))
    write_checkpoint(tmp_path, a_state(2.0))
    whole, previous = (tmp_path / NEWEST).read_bytes(), (tmp_path / PREVIOUS).read_bytes()
    keys, fell_back = set(a_state(0.0)), 0
    rng = np.random.default_rng(0)
    for place in rng.choice(len(whole), 150, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        (tmp_path / NEWEST).write_bytes(damaged)
        (tmp_path / PREVIOUS).write_bytes(previous)
        state = read_checkpoint(tmp_path, {"a": 1}, keys)
        mark = float(state["weights"][0])
        assert torch.equal(state["weights"], torch.full((3000,), mark))
        assert state["rows"] == [1, None, 2.5]
        fell_back += mark == 1.0
        if mark == 1.0:
            assert (tmp_path / NEWEST).read_bytes() == previous
    assert fell_back > 100  # most of the file is weights
    said = capsys.readouterr().out
    assert said.count("is damaged") == fell_back
    assert "the previous one is tried" in said


@pytest.mark.parametrize("damage", ["empty", "cut", "code", "lacks a part", "another thing"])
def test_a_damaged_newest_checkpoint_falls_back_with_a_sentence(tmp_path, capsys, damage):
    write_checkpoint(tmp_path, a_state(1.0))
    write_checkpoint(tmp_path, a_state(2.0))
    path = tmp_path / NEWEST
    if damage in ("empty", "cut"):
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else 5000])
    elif damage == "code":
        torch.save(a_state(2.0) | {"more": SimpleNamespace(a=1)}, path)
    else:
        torch.save({"identity": {"a": 1}} if damage == "lacks a part" else [1], path)
    state = read_checkpoint(tmp_path, {"a": 1}, set(a_state(0.0)))
    assert float(state["weights"][0]) == 1.0
    assert capsys.readouterr().out.count("\n") == 1
    assert (tmp_path / NEWEST).is_file()
    assert not (tmp_path / PREVIOUS).exists()


def test_a_crash_between_the_two_renamings_loses_nothing(tmp_path):
    write_checkpoint(tmp_path, a_state(1.0))
    (tmp_path / NEWEST).rename(tmp_path / PREVIOUS)
    state = read_checkpoint(tmp_path, {"a": 1}, set(a_state(0.0)))
    assert float(state["weights"][0]) == 1.0


def test_what_a_kill_left_of_a_file_is_removed(new_trainer, undisturbed):
    trainer = new_trainer()
    for name in (".checkpoint-ab12.pt", ".model-cd34.safetensors"):
        (trainer.folder / name).write_bytes(b"half of it")
    trainer.fit()
    assert sorted(os.listdir(trainer.folder)) == [NEWEST, "model.safetensors"]
    assert same(undisturbed, trainer)


def test_where_both_are_damaged_the_training_starts_anew(new_trainer, undisturbed, capsys):
    trainer = new_trainer()
    for name in (NEWEST, PREVIOUS):
        (trainer.folder / name).write_bytes(b"no checkpoint")
    trainer.fit()
    assert same(undisturbed, trainer)
    assert "the training starts anew" in capsys.readouterr().out


def test_other_parameters_do_not_resume(new_trainer):
    new_trainer().fit()
    trainer = new_trainer(learning_rate=1e-3)
    assert list(trainer.fit()["epoch"]) == [1, 2, 3]
    other = new_trainer("fresh", learning_rate=1e-3)
    other.fit()
    assert same(trainer, other)


def test_a_full_disk_leaves_the_last_good_state(new_trainer, undisturbed, monkeypatch):
    """A limit on the size of a file is what a test can have of a full disk: writing fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with monkeypatch.context() as patch:
            limits = (8000, hard)
            do_in_step(patch, STEPS + 1, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits))
            trainer = new_trainer()
            with pytest.raises(StudyError) as caught:
                trainer.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in str(caught.value)
    assert "the last good state is kept" in str(caught.value)
    assert sorted(os.listdir(trainer.folder)) == [NEWEST]
    resumed = new_trainer()
    resumed.fit()
    assert [row["epoch"] for row in resumed.history] == [1, 2, 3]
    assert same(undisturbed, resumed)


def test_a_disk_that_fails_late_is_named(new_trainer, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(StudyError, match=r"could not be written \(No space left on device\)"):
        new_trainer().fit()


@pytest.mark.parametrize("every", [1, 3, 100])
def test_a_loss_that_is_no_number_is_traced_to_its_face(faces, new_trainer, every):
    """One face without a label; looked for after each step, after some, after the epoch."""
    row = int(faces.rows("train")[5])
    labels = faces.labels.clone()
    labels[row] = float("nan")
    store = FaceStore(faces.table, faces.images, labels, faces.manifest_sha256)
    trainer = new_trainer(store=store)
    trainer.watch.every = every
    step = int(np.flatnonzero(trainer.feed.order(1) == row)[0]) // 8 + 1
    face = faces.table["image_id"][row]
    with pytest.raises(
        StudyError, match=rf"loss is nan in epoch 1, step {step} of 4, for 1 of the 8 .*: {face};"
    ):
        trainer.fit()
    assert not (trainer.folder / NEWEST).exists()


def test_weights_that_are_no_numbers_are_told_from_a_bad_face(new_trainer, monkeypatch):
    trainer = new_trainer()

    def spoil():
        with torch.no_grad():
            trainer.model.head.bias.fill_(float("inf"))

    do_in_step(monkeypatch, STEPS + 3, spoil)
    with pytest.raises(StudyError, match=r"epoch 2, step 3 of 4, for all 8 faces .* and 3 more\)"):
        trainer.fit()


def test_no_state_is_saved_before_its_losses_were_looked_at(faces, new_trainer, monkeypatch):
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", 0.0)
    trainer = new_trainer(learning_rate=1e30, clip_norm=None)
    trainer.watch.every = 100
    with pytest.raises(StudyError, match="training loss is"):
        trainer.fit()
    state = torch.load(trainer.folder / NEWEST, weights_only=True)
    assert torch.isfinite(state["position"]["sums"]).all()


class NoNumberAsked(TorchDispatchMode):
    """Fails where a tensor's value is asked for, which on a GPU makes the host wait."""

    def __init__(self, allowed: list[torch.Tensor]) -> None:
        super().__init__()
        self.allowed = {id(tensor) for tensor in allowed}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            assert id(args[0]) in self.allowed
        return function(*args, **(kwargs or {}))


def test_a_step_never_waits_for_the_device(new_trainer):
    trainer = new_trainer()
    trainer.watch.every = 100
    at = trainer._begin_epoch(1)
    for batch in trainer.feed.batches(1):
        # Adam counts its steps on the CPU, whatever the device
        counts = [state["step"] for state in trainer.optimizer.state.values()]
        if counts:
            with NoNumberAsked(counts):
                trainer._step(batch.images, batch.labels, batch.rows, at)
        else:
            trainer._step(batch.images, batch.labels, batch.rows, at)
        at.step += 1
    assert len(trainer.watch._steps) == STEPS
    with pytest.raises(AssertionError), NoNumberAsked([]):
        trainer._validate()


def test_a_feed_taken_up_in_the_middle_gives_the_rest(faces):
    feed = Feed(faces, faces.rows("train"), 3, 5, 32, torch.device("cpu"))
    assert feed.steps == len(faces.rows("train")) // 5
    whole = list(feed.batches(2))
    assert len(np.unique(np.concatenate([batch.rows for batch in whole]))) == feed.steps * 5
    for place, batch in enumerate(feed.batches(2, start=3), 3):
        assert (batch.rows == whole[place].rows).all()
        assert torch.equal(batch.images, whole[place].images)
        assert torch.equal(batch.labels, faces.labels[batch.rows])
    assert (feed.order(1) != feed.order(2)).any()
