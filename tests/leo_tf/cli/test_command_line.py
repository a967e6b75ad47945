import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import leo_tf
from leo_tf.cli.flags import _EXAMPLES, _NAMES_ELSEWHERE, parse
from leo_tf.cli.options import OPTIONS
from leo_tf.configs.presets import PRESETS

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "argument",
    [
        "--num_steps=-1",
        "--num_steps_limit=-1",
        "--num_classes=1",
        "--num_classes=five",
        "--way=2.5",
        "--way=",
        "--shot=0",
        "--num_tr_examples_per_class=0",
        "--metavalid_batch_size=0",
        "--metatest_batch_size=10001",
        "--checkpoint_steps=-1",
        "--dropout_rate=1",
        "--dropout_rate=nan",
        "--dropout_rate=half",
        "--kl_weight=-0.1",
        "--l2_penalty_weight=inf",
        "--outer_lr=0",
        "--seed=-1",
        "--seed=" + 5000 * "9",
        "--dataset_name=../x",
        "--dataset_name=",
        "--data_path=",
        "--checkpoint_path=",
        "--workdir=--quiet",
        "--preset=mini",
        "--mode=test",
        "--embedding_crop=left",
        "--dtype=bfloat16",
        "--train_on_val=maybe",
        "--evaluation_mode=2",
        "--unheard_of=1",
    ],
)
def test_a_bad_value_is_refused_under_the_name_that_was_typed(argument, refusal):
    assert refusal(argument).where == argument.split("=")[0]


def test_an_error_says_what_was_expected_and_what_was_typed(refusal):
    expected = "--num_classes: expected an integer of 2 or more, at most 65536, or a "
    error = str(refusal("--num_classes=five"))
    assert error == f"{expected}range such as 5-20, received 'five'."


def test_a_flag_without_its_value_is_named(refusal):
    assert refusal("--seed=1", "--num_classes").where == "--num_classes"
    assert refusal("--way", "--shot=1").where == "--way"
    assert refusal("--notrain_on_val=1").where == "--notrain_on_val"


def test_a_misspelt_flag_gets_a_suggestion(refusal):
    assert refusal("--droput_rate=0.1").hint == "Did you mean --dropout_rate?"
    assert refusal("--zzz\n=1").where == "--zzz\\n"


def test_arguments_that_are_no_flags_are_refused(refusal):
    assert "'train'" in str(refusal("train", "--way=3"))
    assert "'True'" in str(refusal("--evaluation_mode", "True"))


def test_flags_are_read_from_a_file_and_a_bad_file_is_refused(tmp_path, refusal):
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("--num_classes=3\n# a comment\n--seed=4\n")
    options = parse(["run_leo.py", f"--flagfile={good}", "--seed=5"])
    assert dict(options.explicit) == {"way": 3, "seed": 5}
    bad.write_bytes(b"\xff\xfe--way")
    for path in (bad, tmp_path / "none", tmp_path, "a\0b"):
        assert refusal(f"--flagfile={path}").where == "--flagfile"
    for nothing in ("--flagfile", "--flagfile=", "-flagfile="):
        assert refusal(nothing).where == "--flagfile"


def test_a_url_is_no_path_and_the_cure_is_named(refusal):
    for flag in ("workdir", "data_path"):
        error = refusal(f"--{flag}=gs://bucket/x")
        assert error.where == f"--{flag}" and "a bucket must be mounted" in str(error)
    assert "on this machine" in str(refusal("--mode=export", "--export_dir=s3://b"))


def test_names_of_other_programs_are_answered_with_ours(refusal):
    assert refusal("--lr=0.1").hint == "Did you mean --outer_lr?"
    assert refusal("--epochs=3").hint == "Did you mean --num_steps?"
    assert refusal("--batch_size=3").hint == "Did you mean --meta_batch_size?"
    assert refusal("--qqqqqq=3").hint == "--help lists all."


def test_every_name_elsewhere_leads_to_a_flag_of_ours():
    for name, ours in _NAMES_ELSEWHERE.items():
        assert name not in OPTIONS
        flag = re.match(r"--(\w+)", ours)
        assert flag is None or flag[1] in OPTIONS


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as end:
        parse(["run_leo.py", "--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"leo-tf {leo_tf.__version__}\n"


def test_the_examples_of_help_are_command_lines():
    for flags, _ in _EXAMPLES:
        parse(["run_leo.py", *flags.split()])


def flag_file(path, *lines):
    path.write_text("\n".join(lines))
    return f"--flagfile={path}"


def test_files_of_flags_name_each_other_and_what_is_typed_later_counts(tmp_path):
    inner = flag_file(tmp_path / "inner", "", "// a comment", "--shot=2", "--way=3")
    outer = flag_file(tmp_path / "outer", "--way=4", inner, "--seed=4")
    read = parse(["run_leo.py", "--way=2", outer, "--seed=5"])
    assert dict(read.explicit) == {"way": 3, "shot": 2, "seed": 5}
    split = parse(["run_leo.py", *outer.split("="), "--way=6"])
    assert dict(split.explicit) == {"way": 6, "shot": 2, "seed": 4}


@pytest.mark.parametrize("flag", ["--workdir", "--data_path", "--checkpoint_path"])
@pytest.mark.parametrize("mode", ["train", "evaluate", "search", "compare"])
def test_a_path_that_is_no_text_is_refused_by_its_flag_in_every_mode(
    flag, mode, refusal
):
    for path in (os.fsdecode(b"/tmp/\xff"), "/tmp/a\nb", "/tmp/\x1b[31m"):
        assert refusal(f"--mode={mode}", f"{flag}={path}").where == flag
    assert refusal("--mode=serve", "--export_dir=\udcff").where == "--export_dir"


PROGRAM = """
import sys
from leo_tf.cli import flags
try:
    flags.parse(["run_leo.py", *sys.argv[1:]])
finally:
    print([m for m in ("tensorflow", "keras", "numpy") if m in sys.modules])
"""


def run(*arguments):
    command = [sys.executable, "-c", PROGRAM, *arguments]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("flag", ["--help", "-h", "-help", "--helpfull"])
def test_help_shows_every_flag_under_headings_without_tensorflow(flag):
    done = run("--way=nonsense", flag)
    assert done.returncode == 0 and done.stdout.endswith("[]\n"), done.stderr
    text = " ".join(done.stdout.split())
    for name, option in OPTIONS.items():
        assert f"--{name} " in text or f"--[no]{name} " in text, name
        assert not option.group or option.help in text, name
    for heading in ("What to do:", "Data:", "Episodes:", "Model:", "Run:"):
        assert f"\n{heading}\n" in done.stdout
    for preset in PRESETS.values():
        assert preset.description in text
    fact = "as 5-20; default: 5; N in the paper; --num_classes in the original"
    assert fact in text and "--metavalid_batch_size * 10 in" in text
    assert text.count("leo_no_finetuning, ") == 1  # the list of methods stands once
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_flag_error_comes_without_tensorflow():
    done = run("--way=nonsense")
    assert done.stdout == "[]\n" and "FlagError: --way: expected" in done.stderr


def test_draws_to_test_with_are_refused_because_a_search_tests_nothing(refusal):
    error = refusal("--mode=search", "--test_samples=2")
    assert error.where == "--test_samples" and error.hint == "It tests nothing."


def test_advice_about_the_methods_of_pictures_can_be_followed(refusal):
    for flag in ("--method=maml", "--deterministic"):
        error = refusal("--images=a", flag)
        assert "--methods" not in error.hint and "--mode=compare" in error.hint


@pytest.mark.parametrize("mode", ["train", "search", "reproduce"])
def test_folds_of_pictures_without_a_fold_are_refused_before_they_are_embedded(
    refusal, mode
):
    error = refusal(f"--mode={mode}", "--images=a", "--class_folds=3")
    assert error.where == "--fold" and error.expected == "a number from 0 to 2"
    parse(["run_leo.py", "--mode=compare", "--images=a", "--class_folds=3"])


def test_an_error_in_a_list_of_methods_names_the_flag(refusal):
    assert refusal("--methods=ridge@foo", "--mode=compare").where.startswith(
        "--methods:"
    )
