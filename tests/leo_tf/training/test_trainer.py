"""Training: times of validations, choice of the best step, progress lines."""

import math

import numpy as np
import pytest
import saved_runs
from toy_training import Line, run

from leo_tf.configs.schema import Config
from leo_tf.runs.checkpoints import Checkpoints
from leo_tf.runs.settings import uses_jit
from leo_tf.runs.training_state import TrainingState


def outcome(trainer) -> dict:
    """Returns all results of a run except times and training means."""
    workdir = trainer.checkpoints.directory.parent
    return saved_runs.outcome(workdir, trainer.state.step)


def test_the_seed_and_nothing_else_decides_the_noise(make_trainer):
    one, same, other = (
        outcome(run(make_trainer(name, num_steps=2, seed=seed)))
        for name, seed in (("one", 3), ("same", 3), ("other", 4))
    )
    assert same == one and other["variables"] != one["variables"]


def test_validation_comes_at_its_interval_and_after_the_last_step(
    make_trainer, tmp_path
):
    trainer = make_trainer()
    for num_steps, validate_every, expected in [
        (12, 5, [5, 10, 12]),
        (10, 5, [5, 10]),
        (3, 100, [3]),
        (3, 1, [1, 2, 3]),
    ]:
        start_over(trainer, tmp_path / f"{num_steps} {validate_every}")
        trainer.config = trainer.config.replace(
            num_steps=num_steps, validate_every=validate_every
        )
        run(trainer)
        assert [record["step"] for record in trainer.state.history] == expected
        saved = sorted(trainer.checkpoints.directory.iterdir())
        assert [int(path.name[-8:]) for path in saved] == expected
        assert trainer.stopped_by is None


def start_over(trainer, workdir):
    """Starts a new run without compiling again. The kernel is kept."""
    trainer.state, trainer.checkpoints = TrainingState(), Checkpoints(workdir, keep=10)


def test_the_best_is_the_first_with_the_highest_validation_accuracy(
    make_trainer, tmp_path
):
    cases = {
        (0.3, 0.9, 0.5): 10,
        (0.9, 0.3, 0.5): 5,
        (0.3, 0.5, 0.9): 12,
        (0.5, 0.5, 0.5): 5,
        (0.0, 0.0, 0.0): 5,
        (math.nan, 0.3, 0.2): 10,
        (0.3, math.nan, 0.2): 5,
    }
    trainer = make_trainer(accuracies=[a for case in cases for a in case])
    for accuracies, best in cases.items():
        start_over(trainer, tmp_path / str(accuracies))
        run(trainer)
        assert trainer.checkpoints.best().step == best, accuracies
        assert trainer.state.best_step == best
        assert trainer.state.best_accuracy == np.nanmax(accuracies)


def test_training_ends_after_as_many_validations_without_a_new_best_as_it_is_told(
    make_trainer, tmp_path
):
    accuracies = {1: [0.5, 0.4], 2: [0.5, 0.4, 0.6, 0.6, 0.5], 0: [0.5] + 8 * [0.1]}
    trainer = make_trainer(accuracies=[a for each in accuracies.values() for a in each])
    for patience, expected in accuracies.items():  # an equal one is not better
        start_over(trainer, tmp_path / str(patience))
        trainer.config = trainer.config.replace(
            num_steps=9, validate_every=1, patience=patience
        )
        line = Line()
        run(trainer, line)
        found = [record["val_accuracy"] for record in trainer.state.history]
        assert found == expected and trainer.stopped_by is None
        assert trainer.checkpoints.best().step == 1 + np.argmax(expected)
        assert ("Ended early" in line.notes[-1]) == (patience > 0)
    trainer.state.best_step = None  # all were NaN, so there is no plateau
    assert not trainer.state.is_at_plateau(1)


def test_a_run_that_ended_early_stays_ended_until_it_may_wait_longer(make_trainer):
    changes = {"num_steps": 4, "validate_every": 1}
    accuracies = [0.5, 0.4, 0.9, 0.8]
    ended = run(make_trainer("one", accuracies=accuracies, patience=1, **changes))
    assert ended.state.step == 2
    again = make_trainer("one", accuracies=accuracies[2:], patience=1, **changes)
    again.resume(again.checkpoints.newest(print))
    line = Line()
    run(again, line)
    assert again.state.step == 2 and line.notes == [
        "Ended early at step 2: no validation since step 1 was better."
    ]
    longer = make_trainer("one", accuracies=accuracies[2:], patience=2, **changes)
    longer.resume(longer.checkpoints.newest(print))
    whole = run(make_trainer("two", accuracies=accuracies, patience=2, **changes))
    assert outcome(run(longer)) == outcome(whole)
    assert whole.state.step == 4 and whole.state.best_step == 3


def test_with_the_validation_classes_trained_on_the_newest_is_the_best(make_trainer):
    trainer = run(make_trainer(accuracies=[0.9, 0.3, 0.1], train_on_val=True))
    assert trainer.checkpoints.best().step == 12


def test_steps_that_are_not_finite_are_counted_shown_and_survived(make_trainer):
    line = Line()
    trainer = run(make_trainer(broken_steps=(2, 6, 7)), line)
    assert trainer.state.non_finite == 3
    assert line.details[-1].endswith("3 non-finite steps")
    assert "non-finite" not in line.details[0]
    assert trainer.checkpoints.load(12).manifest["progress"]["non_finite"] == 3
    assert all(math.isfinite(r["train_loss"]) for r in trainer.state.history), (
        "means are of finite steps"
    )
    assert np.isfinite(trainer.learner.kernel.numpy()).all()


def test_where_no_step_was_finite_there_is_no_mean_and_training_goes_on(make_trainer):
    trainer = run(make_trainer(broken_steps=tuple(range(5))))
    first, second, _ = trainer.state.history
    assert first["train_accuracy"] is None and first["train_loss"] is None
    assert math.isfinite(second["train_loss"])


def test_means_are_taken_over_the_finite_steps_since_the_last_validation(
    make_trainer,
):
    trainer = make_trainer(broken_steps=(3, 6))
    losses, run_steps = {}, trainer._run_steps

    def noted(iterator, first, count):
        metrics = run_steps(iterator, first, count)
        if not metrics["non_finite"]:
            losses[int(first) + 1] = float(metrics["loss"])
        return metrics

    trainer._run_steps = noted
    run(trainer)
    assert sorted(losses) == [1, 2, 3, 5, 6, 8, 9, 10, 11, 12]
    for record, steps in zip(
        trainer.state.history, ([1, 2, 3, 5], [6, 8, 9, 10], [11, 12])
    ):
        expected = np.mean([losses[step] for step in steps])
        assert record["train_loss"] == pytest.approx(expected, rel=1e-6)


def test_the_line_tells_step_loss_and_accuracy(make_trainer):
    line = Line()
    trainer = run(make_trainer(accuracies=[0.5, 0.4, 0.6]), line)
    last = trainer.state.history[-1]
    assert line.details[-1] == (
        f"step 12  loss {last['train_loss']:.3f}"
        f"  accuracy {100 * last['train_accuracy']:.1f} %"
    )
    assert line.notes == [
        "step 5: validation accuracy 50.00 ± 0.00 %  best so far",
        "step 10: validation accuracy 40.00 ± 0.00 %",
        "step 12: validation accuracy 60.00 ± 0.00 %  best so far",
    ]


@pytest.mark.parametrize(
    ("jit", "num_steps", "expected"),
    [
        ("auto", 4000, True),
        ("auto", 100, False),
        ("on", 1, True),
        ("off", 10**6, False),
    ],
)
def test_auto_compiles_only_a_run_that_is_long_enough(jit, num_steps, expected):
    assert uses_jit(Config().replace(jit=jit, num_steps=num_steps)) is expected
