"""Training state saved with a checkpoint besides the variables."""

import math

from leo_tf.runs.training_state import TrainingState


def test_the_best_validation_has_its_own_width_and_none_is_unknown():
    rows = [
        {"step": 5, "val_accuracy": 1.0, "val_half_width": 0.0},
        {"step": 10, "val_accuracy": 0.5, "val_half_width": None},
    ]
    state = TrainingState(history=rows, best_step=5)
    assert state.best_validation == (1.0, 0.0)
    state.best_step = 10
    assert state.best_validation == (0.5, math.inf)
    assert TrainingState().best_validation is None
