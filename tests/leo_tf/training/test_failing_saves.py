"""Failing saves or steps: how long training continues, and what is kept."""

import pytest
from toy_training import Line, run

from leo_tf.errors import DiskError, DivergedError
from leo_tf.runs.checkpoints import Checkpoints


def fail(monkeypatch, *steps):
    """Checkpoints that cannot be saved at these steps."""
    save = Checkpoints.save

    def fails(checkpoints, step, *arguments):
        if step in steps:
            raise DiskError("checkpoints", "to write a checkpoint", "a full disk")
        save(checkpoints, step, *arguments)

    monkeypatch.setattr(Checkpoints, "save", fails)


def test_after_a_failed_save_training_goes_on_and_tries_again(
    make_trainer, monkeypatch
):
    fail(monkeypatch, 5)
    line = Line()
    trainer = run(make_trainer(accuracies=[0.3, 0.4, 0.5]), line)
    assert trainer.checkpoints.best().step == 12
    notes = [note for note in line.notes if "full disk" in note]
    assert len(notes) == 1 and notes[0].startswith("not saved, training continues: ")


def test_what_could_not_be_saved_is_not_the_best(make_trainer, monkeypatch):
    fail(monkeypatch, 10)
    trainer = run(make_trainer(accuracies=[0.3, 0.9, 0.5]))
    assert trainer.checkpoints.best().step == 12
    assert trainer.state.best_accuracy == 0.5


def test_three_failed_saves_in_a_row_end_training(make_trainer, monkeypatch):
    fail(monkeypatch, 2, 4, 6)
    trainer = make_trainer(validate_every=2)
    with pytest.raises(DiskError, match="full disk"):
        run(trainer)
    assert trainer.state.step == 6


def test_failed_saves_that_are_not_in_a_row_do_not_add_up(make_trainer, monkeypatch):
    fail(monkeypatch, 1, 2, 4, 5, 7, 8)
    assert run(make_trainer(validate_every=1)).checkpoints.load(12)


def test_a_failed_last_save_is_an_error(make_trainer, monkeypatch):
    fail(monkeypatch, 12)
    trainer = make_trainer()
    with pytest.raises(DiskError, match="full disk"):
        run(trainer)
    assert trainer.checkpoints.newest(pytest.fail).step == 10


def test_too_many_steps_that_are_not_finite_end_training_and_keep_the_last_checkpoint(
    make_trainer,
):
    trainer = make_trainer(broken_steps=(6, 7, 8), non_finite_limit=2, log_every=1)
    with pytest.raises(DivergedError, match=r"step 9: .*at most 2 .*received 3") as got:
        run(trainer)
    assert got.value.exit_code == 6
    assert trainer.checkpoints.newest(pytest.fail).step == 5


def test_steps_that_are_not_finite_end_training_however_often_it_is_validated(
    make_trainer,
):
    broken = (0, 1, 3, 4, 5, 6)  # one finite step among them is not enough
    trainer = make_trainer(broken_steps=broken, non_finite_limit=3, validate_every=1)
    with pytest.raises(DivergedError, match="step 6"):
        run(trainer)


def test_finite_steps_make_up_for_others(make_trainer):
    trainer = make_trainer(broken_steps=(0, 3, 6, 7, 10), non_finite_limit=2)
    assert run(trainer).state.non_finite == 5
