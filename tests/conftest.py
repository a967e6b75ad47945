"""A tiny data set, and runs of the whole program on it, in this process."""

import contextlib
import gc
import os
import pathlib
import shutil

import hypothesis
import numpy as np
import psutil
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# A busy machine is no fault of the code.
_SLOW = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("any", deadline=None, suppress_health_check=_SLOW)
hypothesis.settings.load_profile("any")

_EMBEDDING_SIZE, _ROWS = 8, 12
_CLASSES = {"train": 8, "val": 6, "test": 7}
_SMALL = (
    "--dataset_name=tiny",
    "--way=3",
    "--shot=1",
    "--num_query=3",
    "--meta_batch_size=2",
    "--num_latents=4",
    "--inner_unroll_length=1",
    "--finetuning_unroll_length=1",
    "--outer_lr=0.02",
    "--num_val_episodes=6",
    "--num_test_episodes=8",
    "--validate_every=5",
    "--log_every=2",
    "--jit=off",
)


def _write_split(path: pathlib.Path, split: str, classes: int, seed: int, **changes):
    """Writes `classes` noisy clusters as one .npz file, with some arrays changed."""
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(size=(classes, _EMBEDDING_SIZE)), _ROWS, axis=0)
    arrays = {
        "embeddings": np.float32(centres + random.normal(size=centres.shape)),
        "labels": np.repeat([f"{split}_{i}" for i in range(classes)], _ROWS),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{**arrays, **changes})


# Files of many seconds, the longest first; all others are quick.
_LONG = (
    *(
        "test_from_images",
        "test_conformance",
        "test_compare",
        "test_examples",
        "test_hostile_runs",
    ),
    *("test_main", "test_search", "test_faults", "test_version_directory"),
    *("test_train", "test_goldens", "test_diverging", "test_transforms"),
    *("test_public_api", "test_exporter", "test_resuming", "test_meta_step"),
    *("test_tflite", "test_linear", "test_synthetic_gate", "test_ensemble"),
    *("test_model_versions", "test_wheel", "test_method_runs", "test_evaluate"),
    *("test_replicas", "test_loaders", "test_noise", "test_registry"),
)


def pytest_collection_modifyitems(items):
    """Runs long files first, because a late one would keep the others waiting."""
    place = {name: number for number, name in enumerate(_LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(_LONG)))


def pytest_collection_finish():
    """Freezes modules, so that the garbage collector skips them.

    It would else take a tenth of the time in which graphs are traced.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture
def write_split():
    """The function that writes one split of a data set like "tiny"."""
    return _write_split


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Returns a function that fills a directory of a name once for all workers."""

    def made_once(name: str, fill) -> pathlib.Path:
        if "PYTEST_XDIST_WORKER" not in os.environ:
            fill(directory := tmp_path_factory.mktemp(name))
            return directory
        import fcntl

        directory = tmp_path_factory.getbasetemp().parent / name
        with directory.with_suffix(".lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not lock.seek(0, os.SEEK_END):
                shutil.rmtree(directory, ignore_errors=True)
                directory.mkdir()
                fill(directory)
                lock.write("made")
        return directory

    return made_once


@pytest.fixture(scope="session")
def tiny_data(made_once) -> pathlib.Path:
    """A directory with the data set "tiny": not to be changed."""

    def fill(directory):
        for seed, (split, classes) in enumerate(_CLASSES.items()):
            _write_split(directory / "tiny" / f"{split}.npz", split, classes, seed)

    return made_once("data", fill)


@pytest.fixture(scope="session")
def small_flags(tiny_data) -> list[str]:
    """The flags of a run of seconds: 12 steps of a small LEO on "tiny"."""
    return [*_SMALL, f"--data_path={tiny_data}", "--num_steps=12"]


@pytest.fixture(scope="session")
def train(small_flags):
    """Trains a run directory in this process; returns the exit status."""
    from leo_tf.cli.main import main

    def train(workdir, *flags) -> int:
        return main(["run_leo.py", *small_flags, f"--workdir={workdir}", *flags])

    return train


@contextlib.contextmanager
def _quick_jobs():
    import tensorflow as tf

    from leo_tf.evaluation import adaptation_time, evaluate, validation_tuning
    from leo_tf.methods.query_aware import pt_map
    from leo_tf.monitoring.validation import ValidationMonitor
    from leo_tf.reports import figures

    def query_scores(learner, classifier, rows, by_class):
        queries = tf.gather(by_class.table.features, rows.query)  # [B, N, Q, D]
        return learner.logits(classifier, queries)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ValidationMonitor, "_show", lambda self, step: None)
        patch.setattr(figures, "learning_curve", lambda *_: figures.new_figure(1, 1))
        patch.setattr(adaptation_time, "_TIMED", 1)
        patch.setattr(adaptation_time, "_WARM", 0)
        patch.setattr(pt_map, "_MOST_SINKHORN_STEPS", 5)
        patch.setattr(evaluate, "query_scores", query_scores)
        for name in ("SHARES", "STRENGTHS", "LAPLACIAN_WEIGHTS"):
            every = getattr(validation_tuning, name)
            patch.setattr(validation_tuning, name, every[:: len(every) // 3])
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def quickly(trained):
    """A context like `quick_jobs`, for fixtures."""
    return _quick_jobs


@pytest.fixture(scope="module")
def quick_jobs(trained):
    """Runs jobs without tracing, for tests of their results and files.

    A graph for a few steps takes longer than these steps. What takes long and is tested
    elsewhere is short: validation episodes and learning curves are not drawn
    (monitoring, reports), queries are gathered and not scored by class
    (evaluation/test_query_scores), and few values of a setting are tried. `trained`
    stays as it is anywhere.
    """
    with _quick_jobs():
        yield


@pytest.fixture
def quick_job(trained):
    """Does as `quick_jobs`, for one test."""
    with _quick_jobs():
        yield


@pytest.fixture(scope="session")
def evaluate():
    """Evaluates a run directory in this process; returns the exit status."""
    from leo_tf.cli.main import main

    def evaluate(workdir, *flags) -> int:
        mode = ["--mode=evaluate", f"--workdir={workdir}"]
        return main(["run_leo.py", *mode, *flags])

    return evaluate


@pytest.fixture(scope="session")
def trained(train, made_once) -> pathlib.Path:
    """A finished run of 12 steps, validated after 5, 10 and 12: not to be changed."""

    def fill(directory):
        assert train(directory / "run", "--quiet") == 0

    return made_once("trained", fill) / "run"


@pytest.fixture(scope="session")
def trained_export(trained, made_once) -> pathlib.Path:
    """A directory with version 1 of that run, exported: not to be changed."""
    from exported_models import export

    def fill(directory):
        assert export(trained, directory / "new" / "models") == 0

    return made_once("trained_export", fill) / "new" / "models"


@pytest.fixture
def make_trainer(tmp_path, monkeypatch):
    """Returns `toy_training.make_trainer` for run directories below `tmp_path`.

    It makes one step a call, so that a signal stops it at the very step a test wants.
    """
    import toy_training

    from leo_tf.training import trainer

    monkeypatch.setattr(trainer, "_SECONDS_PER_CALL", 0.0)

    def make(workdir="run", **options):
        return toy_training.make_trainer(tmp_path / workdir, **options)

    return make


@pytest.fixture
def trained_copy(trained, tmp_path) -> pathlib.Path:
    """A copy of the finished run, to damage at will."""
    return pathlib.Path(shutil.copytree(trained, tmp_path / "copy"))


@pytest.fixture
def children():
    """Returns the child processes that this test has started and that still exist.

    Others may be of earlier tests, such as those that scikit-learn keeps for a while.
    """
    before = {*psutil.Process().children()}

    def mine() -> list[psutil.Process]:
        return [*{*psutil.Process().children()} - before]

    return mine
