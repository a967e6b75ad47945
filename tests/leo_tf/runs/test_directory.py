"""A run directory: one configuration, one writer, clear refusals."""

import errno
import fcntl
import json
import os
import pathlib
import socket
import stat
import subprocess
import sys

import pytest

import leo_tf
from leo_tf.configs.schema import Config
from leo_tf.errors import DiskError, FlagError, InputError
from leo_tf.export.version_directory import version_path
from leo_tf.runs.directory import RunDirectory

ROOT = pathlib.Path(__file__).parents[3]
CONFIG = Config().replace(dropout_rate=0.25, preset="glyphs")


def begin(path, config=CONFIG):
    """Starts and ends a training that saves a checkpoint."""
    with RunDirectory(path).for_training(config) as directory:
        directory.write_config(config)
        (directory.path / "checkpoints").mkdir(exist_ok=True)


def refused(path, config=CONFIG) -> InputError:
    before = (path / "config.json").exists() and (path / "config.json").read_bytes()
    with pytest.raises(InputError) as caught, RunDirectory(path).for_training(config):
        pytest.fail("it should have been refused")
    assert "\n" not in str(caught.value)
    assert before == (
        (path / "config.json").exists() and (path / "config.json").read_bytes()
    )
    return caught.value


def test_the_configuration_comes_back_equal(tmp_path):
    config = CONFIG.replace(outer_lr=1 / 3, test_way=7, data_path="ä ö")
    begin(tmp_path / "run", config)
    assert RunDirectory(tmp_path / "run").config() == config


@pytest.mark.parametrize("name", ["with blanks", "Läufe/試行 1", "a'b\"c$d"])
def test_any_path_will_do_and_parents_are_made(tmp_path, name):
    begin(tmp_path / name)
    assert RunDirectory(tmp_path / name).config() == CONFIG


def test_a_path_from_a_directory_that_was_removed_is_refused(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match=r"run: expected .* that was removed"):
        RunDirectory("run")
    assert RunDirectory(tmp_path).path == tmp_path


def test_the_same_configuration_may_start_again(tmp_path):
    for _ in range(3):
        begin(tmp_path)
    assert RunDirectory(tmp_path).config() == CONFIG


def test_another_configuration_is_refused_naming_each_field_with_both_values(tmp_path):
    begin(tmp_path)
    error = refused(tmp_path, CONFIG.replace(way=7, dropout_rate=0.5, dtype="float64"))
    assert error.where == str(tmp_path)
    assert error.received == (
        "another: dtype is 'float32' there and 'float64' here; "
        "way is 5 there and 7 here; dropout_rate is 0.25 there and 0.5 here"
    )
    assert "another --workdir" in error.hint
    assert RunDirectory(tmp_path).config() == CONFIG


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dataset_name", "other"),
        ("train_on_val", True),
        ("test_num_query", 5),
        ("num_latents", 32),
        ("gradient_threshold", 0.2),
        ("validate_every", 7),
        ("num_val_episodes", 7),
        ("seed", 1),
        ("jit", "on"),
    ],
)
def test_a_field_that_changes_numbers_is_refused_to_change(tmp_path, field, value):
    begin(tmp_path)
    assert (
        f"{field} is " in refused(tmp_path, CONFIG.replace(**{field: value})).received
    )


def test_what_changes_no_number_may_change_and_is_written_down(tmp_path):
    begin(tmp_path)
    changed = CONFIG.replace(
        num_steps=9,
        num_test_episodes=9,
        keep_checkpoints=9,
        log_every=9,
        data_path="/elsewhere",
        preset="",
    )
    begin(tmp_path, changed)
    assert RunDirectory(tmp_path).config() == changed


def test_a_start_that_saved_nothing_does_not_bind_the_next_one(tmp_path):
    with RunDirectory(tmp_path).for_training(CONFIG):
        pass  # like data that does not fit the flags
    with RunDirectory(tmp_path).for_training(CONFIG) as directory:
        directory.write_config(CONFIG)  # like a kill before the first validation
    begin(tmp_path, CONFIG.replace(way=3))
    assert RunDirectory(tmp_path).config().episodes.way == 3


def test_a_start_that_wrote_nothing_leaves_no_directory_that_it_made(tmp_path):
    (tmp_path / "mine").mkdir()
    for name in ("new", "mine"):
        with (
            pytest.raises(ZeroDivisionError),
            RunDirectory(tmp_path / name).for_training(CONFIG),
        ):
            raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_directory_in_which_anything_was_written_stays(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        RunDirectory(tmp_path / "run").for_training(CONFIG) as directory,
    ):
        directory.write_config(CONFIG)
        raise ZeroDivisionError
    assert RunDirectory(tmp_path / "run").config() == CONFIG


def test_who_waited_for_a_directory_that_goes_does_not_train_in_it(
    tmp_path, monkeypatch
):
    path, flock = tmp_path / "run", fcntl.flock

    def flock_late(lock, how):
        monkeypatch.setattr(fcntl, "flock", flock)
        (path / ".lock").unlink()  # like a process that created it and wrote nothing
        flock(lock, how)

    path.mkdir()
    monkeypatch.setattr(fcntl, "flock", flock_late)
    assert "another process" in refused(path).received
    begin(path)


def test_of_two_that_make_a_directory_at_once_the_refused_one_takes_nothing_away(
    tmp_path, monkeypatch
):
    path = tmp_path / "run"
    with RunDirectory(path).for_training(CONFIG) as directory:
        monkeypatch.setattr(os.path, "lexists", lambda path: False)  # a moment ago
        assert "no other process" in refused(path).expected
        assert (path / ".lock").exists()
        directory.write_config(CONFIG)
    assert RunDirectory(path).config() == CONFIG


def test_with_leave_a_run_goes_on_with_another_configuration(tmp_path):
    begin(tmp_path)
    other = CONFIG.replace(way=3)
    refused(tmp_path, other)
    with RunDirectory(tmp_path).for_training(other, allow_changes=True) as directory:
        assert directory.config() == CONFIG, "written only when it is sure to begin"


HOLDS = """
import sys
import leo_tf
from leo_tf.configs.schema import Config
from leo_tf.runs.directory import RunDirectory
with RunDirectory(sys.argv[1]).for_training(Config()):
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_told_who_trains(tmp_path):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, tmp_path],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout.readline() == b"holding\n"
        error = refused(tmp_path, Config())
        assert error.where == str(tmp_path)
        assert f"process {process.pid} on {socket.gethostname()}" in error.received
        process.kill()
    # The killed process could not clean up, but its lock is gone.
    begin(tmp_path, Config())


def test_the_lock_is_free_after_an_error_inside(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        RunDirectory(tmp_path).for_training(CONFIG),
    ):
        raise ZeroDivisionError
    begin(tmp_path)


def test_while_it_is_held_the_same_process_cannot_take_it_twice(tmp_path):
    with RunDirectory(tmp_path).for_training(CONFIG):
        assert f"process {os.getpid()} on" in refused(tmp_path).received


def test_it_is_held_even_if_its_lock_file_is_removed(tmp_path):
    with RunDirectory(tmp_path).for_training(CONFIG):
        for _ in range(2):  # the second time with the refused one's lock file
            (tmp_path / ".lock").unlink()
            assert "another process" in refused(tmp_path).received
            assert "another process" in refused(tmp_path).received
    begin(tmp_path)


def test_a_file_system_that_locks_files_only_will_do(tmp_path, monkeypatch):
    flock = fcntl.flock

    def flock_of_nfs(descriptor, how):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock_of_nfs)
    with RunDirectory(tmp_path).for_training(CONFIG):
        assert f"process {os.getpid()} on" in refused(tmp_path).received
    begin(tmp_path)


def test_no_file_elsewhere_is_overwritten_by_way_of_the_lock(tmp_path):
    mine = tmp_path / "thesis.txt"
    for content in ("mine", None):  # None: no file is created elsewhere
        mine.unlink(missing_ok=True)
        if content:
            mine.write_text(content)
        run = tmp_path / f"run of {content}"
        run.mkdir()
        (run / ".lock").symlink_to(mine)
        assert refused(run).where == str(run / ".lock")
        if content:
            (run / ".lock").unlink()
            os.link(mine, run / ".lock")
            assert refused(run).where == str(run / ".lock")
        assert mine.read_text() == content if content else not mine.exists()
        (run / ".lock").unlink()
        os.mkfifo(run / ".lock")
        assert refused(run).where == str(run / ".lock")


def test_whatever_a_held_lock_says_is_shown_on_one_line(tmp_path):
    (tmp_path / ".lock").write_bytes(b"\xff\xfe\n\x1b[31m")
    with (tmp_path / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert r"\n\x1b[31m" in refused(tmp_path).received
    begin(tmp_path)


def test_no_descriptor_stays_open(tmp_path):
    begin(tmp_path)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        begin(tmp_path)
        refused(tmp_path, CONFIG.replace(way=3))
    assert os.listdir("/proc/self/fd") == before


def test_an_evaluation_reads_while_another_process_trains(tmp_path):
    with RunDirectory(tmp_path).for_training(CONFIG) as directory:
        directory.write_config(CONFIG)
        assert RunDirectory(tmp_path).config() == CONFIG


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"run": {"seed": 1', b"\xff\xfe", b"[" * 100_000, bytes(50)],
)
def test_a_damaged_config_is_named_and_left_alone(tmp_path, content):
    begin(tmp_path)
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert refused(tmp_path).where == str(path)
    with pytest.raises(InputError) as caught:
        RunDirectory(tmp_path).config()
    assert caught.value.where == str(path) and path.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"way": 5}, "'way'"),
        ({"run": {"sed": 1}}, "'sed'"),
        ({"run": {"seed": "1"}}, "`run.seed`"),
        ({"run": []}, "`run`"),
        ({"episodes": {"way": 1}}, "`episodes.way`"),
    ],
)
def test_a_field_no_configuration_has_is_named_with_the_file(
    tmp_path, change, complaint
):
    begin(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**CONFIG.to_dict(), **change}))
    error = refused(tmp_path)
    assert str(error).startswith(str(path)) and complaint in str(error)


@pytest.mark.parametrize("name", ["checkpoints", "best", "results.json"])
def test_results_without_a_config_are_no_fresh_directory(tmp_path, name):
    (tmp_path / name).mkdir()
    assert refused(tmp_path).received == f"{name} without config.json"


def test_a_run_in_the_directory_of_a_job_is_told_to_go_elsewhere(tmp_path):
    (tmp_path / "job.json").write_text('{"mode": "compare"}')
    error = refused(tmp_path)
    assert error.expected == "a directory for one run"
    assert (
        error.received == "that of --mode=compare" and "another --workdir" in error.hint
    )


def test_other_files_of_the_user_are_no_obstacle(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    begin(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_no_run_is_an_error_that_names_the_directory(tmp_path):
    with pytest.raises(InputError, match=r"config\.json, received none") as caught:
        RunDirectory(tmp_path / "none").config()
    assert caught.value.where == str(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        RunDirectory(tmp_path / "file").config()
    assert str(tmp_path / "file") in caught.value.where


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with (
        pytest.raises(
            InputError, match="a directory, or none yet, received a file"
        ) as caught,
        RunDirectory(tmp_path / "run").for_training(CONFIG),
    ):
        pytest.fail("it should have been refused")
    assert caught.value.where == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("module", "name", "error"),
    [
        (pathlib.Path, "mkdir", errno.EROFS),
        (os, "open", errno.EACCES),
        (fcntl, "flock", errno.ENOLCK),  # file systems without locks
        (os, "fsync", errno.ENOSPC),
    ],
)
def test_where_nothing_can_be_written_it_is_a_disk_error(
    tmp_path, monkeypatch, module, name, error
):
    def fail(*unused, **unused_options):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(module, name, fail)
    with pytest.raises(DiskError, match=os.strerror(error)) as caught:
        begin(tmp_path)
    assert caught.value.where.startswith(str(tmp_path))


def test_json_is_written_for_strict_readers_and_replaced_whole(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.write_json("results.json", {"ä": [1, 0.1, None]})
    directory.write_json("results.json", {"b": 2})
    assert json.loads((tmp_path / "results.json").read_text()) == {"b": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_config_json_of_somebody_else_is_refused_and_stays(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["mine"]}')
    assert "architectures" in str(refused(tmp_path))


def test_a_url_is_refused_before_a_directory_of_its_name_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config().replace(num_steps=1)
    for job in (leo_tf.train, leo_tf.reproduce, leo_tf.search):
        with pytest.raises(FlagError, match="a bucket must be mounted"):
            job(config, workdir="gs://bucket/run")
    with pytest.raises(FlagError, match="a bucket must be mounted"):
        leo_tf.evaluate(pathlib.Path("gs://bucket/run"))
    with pytest.raises(FlagError, match="a bucket must be mounted"):
        version_path("s3://bucket/exports")
    with pytest.raises(FlagError, match="a bucket must be mounted"):
        leo_tf.load_data("hdfs://host/features")
    assert not [*tmp_path.iterdir()]
