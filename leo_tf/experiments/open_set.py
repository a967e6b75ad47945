"""Tests how well queries of unknown classes are detected: `--open_set`."""

from collections.abc import Mapping
from typing import TypeAlias

from leo_tf.configs.schema import Config
from leo_tf.console import Console
from leo_tf.data_pipeline.dataset import Split
from leo_tf.errors import FlagError
from leo_tf.evaluation.confidence import Confidence, OpenSet, tested
from leo_tf.evaluation.open_episodes import answers_as_tested, outside_of
from leo_tf.model.learner import AnyLearner

Fitted: TypeAlias = Mapping[str, Confidence | None]  # by method


def score_open(
    learners: Mapping[str, AnyLearner],
    config: Config,
    split: Split,
    console: Console,
    fitted: Fitted,
    wanted: bool,
) -> dict[str, OpenSet]:
    """Tests "none of these" and prediction sets, if `wanted`.

    Methods without a fitted confidence are left out.
    """
    if not wanted:
        return {}
    found = {}
    count = config.run.num_test_episodes
    for name, learner in learners.items():
        if (known := fitted[name]) is not None:
            given = config, split, count, console, f"{name}, other classes"
            found[name] = tested(answers_as_tested(learner, *given), known)
    return found


def check_open_set(config: Config, split: Split) -> None:
    """Checks that "none of these" can be tested on the test data.

    Raises:
      FlagError: if no class is left outside an episode, or the validation classes were
        trained on.
    """
    if config.data.train_on_val:
        received = "--train_on_val"
        raise FlagError("--open_set", "validation classes to fit it to", received)
    if outside_of(config, split) < 1:
        expected = f"more than {config.episodes.evaluation_way} test classes with it"
        raise FlagError("--open_set", expected, str(len(split.class_names)))
