"""Optuna studies of a search, for optuna-dashboard and for importances."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leo_tf.console import Console
from leo_tf.errors import one_line
from leo_tf.evaluation.job_results import Trial
from leo_tf.methods.drawing import containing, distribution, frozen, quietly
from leo_tf.methods.settings import ranges

# With fewer accuracies, importances are random.
_FEWEST = 4


class Journal:
    """A file with the study of each method for optuna-dashboard, always up to date.

    It is rewritten whenever the search resumes, and never read. A failure to write it
    is only a warning.
    """

    def __init__(self, path: pathlib.Path, console: Console):
        self._path, self._console = path, console
        self._studies: dict[str, Any] = {}
        self._trials: dict[tuple[str, int], Any] = {}
        self._is_broken = False
        with self._writing():
            for old in path.parent.glob(f"{path.name}*"):  # and its lock
                old.unlink()

    def begin(self, name: str, number: int, settings: Mapping[str, float]) -> None:
        """Adds a trial with its settings, unless it exists."""
        if self._is_broken or (name, number) in self._trials:
            return
        with self._writing():
            space = {k: distribution(k, *each) for k, each in ranges(name).items()}
            study = self._study(name)
            study.enqueue_trial(dict(settings))
            trial = study.ask(containing(settings, space))
            self._trials[name, number] = trial

    def report(self, name: str, number: int, accuracy: float, step: int) -> None:
        """Adds the accuracy of a trial at a rung."""
        if self._is_broken:
            return
        with self._writing():
            self._trials[name, number].report(accuracy, step)

    def end(self, name: str, number: int, trial: Trial, is_last: bool) -> None:
        """Marks a trial as ended; as pruned if it is not at the last rung."""
        if self._is_broken:
            return
        import optuna

        states = optuna.trial.TrialState
        value = trial.accuracy.mean if trial.accuracy and not trial.diverged else None
        state = states.COMPLETE if is_last else states.PRUNED
        with self._writing():
            self._study(name).tell(
                self._trials[name, number],
                value if is_last else None,
                state=states.FAIL if value is None else state,
            )

    def _study(self, name: str) -> Any:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        if name not in self._studies:
            storage = JournalStorage(JournalFileBackend(str(self._path)))
            self._studies[name] = optuna.create_study(
                storage=storage, study_name=name, direction="maximize"
            )
        return self._studies[name]

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        import optuna

        try:
            with quietly():
                yield
        # ValueError: of a line that is cut off, as a full disk leaves it.
        except (OSError, ValueError, optuna.exceptions.OptunaError) as error:
            self._console.warn(f"{self._path.name} not written: {one_line(str(error))}")
            self._is_broken = True


def importances(name: str, trials: Sequence[Trial]) -> dict[str, float]:
    """Returns setting -> its share in the differences of first-rung accuracies.

    They are from PED-ANOVA (Watanabe et al., 2023, arXiv:2304.10255). With few trials
    there are none.
    """
    import optuna

    known = [(t.settings, t.rungs[0]) for t in trials if t.settings and t.rungs]
    if len({accuracy for _, accuracy in known}) < _FEWEST:
        return {}
    space = {key: distribution(key, *limits) for key, limits in ranges(name).items()}
    with quietly():
        study = optuna.create_study(direction="maximize")
        for settings, accuracy in known:
            study.add_trial(frozen(settings, accuracy, space))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(found[key]) for key in space if key in found}
