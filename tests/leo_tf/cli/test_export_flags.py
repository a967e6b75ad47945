import pytest

from leo_tf.cli.flags import parse

EXPORT = ["--mode=export", "--workdir=/w", "--export_dir=/e"]


def read(*arguments):
    return parse(["run_leo.py", *arguments])


def test_export_has_defaults_for_all_but_its_directories():
    options = read(*EXPORT)
    assert options.workdir == "/w"
    assert options.arguments == {
        "export_dir": "/e",
        "format": "saved_model",
        "version": None,
        "max_classes": 100,
        "max_support": 1000,
        "backbone": None,
        "backbone_weights": None,
    }


def test_export_flags_are_read():
    flags = ["--export_format=tflite", "--export_version=7"]
    options = read(*EXPORT, *flags, "--max_classes=2", "--max_support=3")
    assert options.arguments == {
        "export_dir": "/e",
        "format": "tflite",
        "version": 7,
        "max_classes": 2,
        "max_support": 3,
        "backbone": None,
        "backbone_weights": None,
    }


@pytest.mark.parametrize("missing", ["workdir", "export_dir"])
def test_export_needs_both_directories(missing, refusal):
    given = [flag for flag in EXPORT if not flag.startswith(f"--{missing}")]
    assert refusal(*given).where == f"--{missing}"


@pytest.mark.parametrize(
    "flag",
    ["max_classes=1", "max_support=1", "export_version=0", "export_format=onnx"],
)
def test_a_value_beyond_the_edge_is_refused(flag, refusal):
    assert refusal(*EXPORT, f"--{flag}").where == f"--{flag.split('=')[0]}"


@pytest.mark.parametrize("flag", ["way=5", "preset=mini_1shot", "num_latents=4"])
def test_settings_are_the_runs_and_refused(flag, refusal):
    assert refusal(*EXPORT, f"--{flag}").where == f"--{flag.split('=')[0]}"


@pytest.mark.parametrize("mode", ["train", "evaluate"])
@pytest.mark.parametrize(
    "flag",
    ["max_classes=9", "max_support=9", "export_version=1", "export_format=tflite"],
)
def test_export_flags_are_refused_in_other_modes(mode, flag, refusal):
    error = refusal(f"--mode={mode}", "--workdir=/w", f"--{flag}")
    assert error.where == f"--{flag.split('=')[0]}"
    assert (error.expected, error.received) == ("--mode=export", f"--mode={mode}")
