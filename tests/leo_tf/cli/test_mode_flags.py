"""Flags of one mode are refused in the others."""

import pytest

from leo_tf.cli import jobs
from leo_tf.cli.flags import parse
from leo_tf.cli.options import OPTIONS
from leo_tf.console import Console

SERVE = "--mode=serve", "--export_dir=/x"


def read(*arguments):
    return parse(["run_leo.py", *arguments])


def test_the_steps_to_profile_are_the_first_and_the_last():
    for flags, steps in (
        ([], None),
        (["--profile_steps=7-7"], (7, 7)),
        (["--profile_steps=200-1000"], (200, 1000)),
    ):
        assert read(*flags).arguments["profile_steps"] == steps


@pytest.mark.parametrize(
    "text",
    ["", "5", "5-", "-5", "0-5", "6-5", "5-6-7", "5-6x", " 5-6", "٥-٦", "1e1-20"],
)
def test_steps_to_profile_that_are_no_span_are_refused(text, refusal):
    assert refusal(f"--profile_steps={text}").where == "--profile_steps"


def test_a_server_listens_on_loopback_at_tensorflow_servings_port_unless_told():
    options = read(*SERVE)
    assert options.mode == "serve"
    assert options.arguments == {
        "export_dir": "/x",
        "host": "127.0.0.1",
        "port": 8501,
        "max_request_bytes": 32 * 2**20,
        "cors_origins": (),
    }
    options = read(*SERVE, "--host=::", "--port=0", "--max_request_bytes=5")
    assert options.arguments == {
        "export_dir": "/x",
        "host": "::",
        "port": 0,
        "max_request_bytes": 5,
        "cors_origins": (),
    }


@pytest.mark.parametrize(
    "text",
    [
        *("*", "https://page.example", "http://localhost:3000", "http://[::1]:8080"),
        *("https://a.example,http://127.0.0.1,*", "chrome-extension://abc", "app://x"),
        *("https://xn--bcher-kva.example", "http://a.example:443", "https://a:8443"),
    ],
)
def test_origins_of_pages_are_separated_by_commas(text):
    origins = read(*SERVE, f"--cors_origin={text}").arguments["cors_origins"]
    assert origins == tuple(text.split(","))


@pytest.mark.parametrize(
    "text",
    [
        *("", ",", "page.example", "https://", "https://page.example/", "https://a/b"),
        *("https://Page.example", "HTTPS://page.example", "https://a.example:443"),
        *(
            "http://a.example:80",
            "https://bücher.example",
            "https://a.example:",
            "null",
        ),
        *(
            "https://a.example https://b.example",
            "https://a.example, https://b.example",
        ),
        *("https://*.example", "https://a.example,", "https://me@a.example", "a:b"),
        *("https://a.example\n", "https://a.example?x", "https://a.example:0"),
    ],
)
def test_an_origin_that_no_browser_would_send_is_refused(text, refusal):
    assert refusal(*SERVE, f"--cors_origin={text}").where == "--cors_origin"


def test_what_to_serve_must_be_said(refusal):
    assert refusal("--mode=serve").where == "--export_dir"


@pytest.mark.parametrize(
    "flag", ["--workdir=/w", "--way=3", "--preset=glyphs", "--data_path=/e", "--seed=1"]
)
def test_a_server_refuses_flags_of_training(flag, refusal):
    error = refusal(*SERVE, flag)
    assert error.where == flag.split("=")[0] and "--mode=serve" in error.expected


@pytest.mark.parametrize(
    "mode", ["train", "evaluate", "compare", "reproduce", "export", "serve"]
)
@pytest.mark.parametrize(
    "name", [o.name for o in OPTIONS.values() if o.modes and o.target == o.name]
)
def test_every_flag_of_some_modes_is_refused_in_the_others(mode, name, refusal):
    option = OPTIONS[name]
    if mode in option.modes:
        return
    kinds = {str: "saved_model", int: "70", float: "0.5", bool: "true"}
    texts = {"profile_steps": "3-7", "methods": "leo", "cors_origin": "*"}
    texts |= {"views": "whole", "recipe": "paper", "sampler": "qmc"}
    text = texts.get(name, kinds[option.rule.kind])
    error = refusal(f"--mode={mode}", "--workdir=/w", f"--{name}={text}")
    assert error.where == f"--{name}"
    assert (error.expected, error.received) == (
        f"--mode={' or '.join(option.modes)}",
        f"--mode={mode}",
    )


@pytest.mark.parametrize(
    "flag",
    ["--port=-1", "--port=65536", "--port=http", "--max_request_bytes=0", "--host="],
)
def test_values_beyond_the_edge_are_refused(flag, refusal):
    assert refusal(*SERVE, flag).where == flag.split("=")[0]


def test_what_to_compare_is_some_methods_each_once(refusal):
    assert read("--mode=compare").arguments["methods"] is None, "those of `compared`"
    for mode in ("compare", "search"):
        names = read(f"--mode={mode}", "--methods=maml,leo@lda").arguments["methods"]
        assert names == ("maml", "leo@lda")
    for names in ("", "leo,", "leo,leo", "leo@lda,leo@lda", "LEO", "leo ridge", "svm"):
        assert refusal("--mode=compare", f"--methods={names}").where == "--methods"
    assert refusal("--mode=compare", "--methods=svm@lda").where == "--methods"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ridge@pca", "none, center, within, lda, soft, received 'pca'."),
        ("ridge@", "none, center, within, lda, soft, received ''."),
        ("ridge@lda@soft", "received 'lda@soft'."),
        (
            "lda@soft",
            "expected lda alone, which includes lda, received @soft. Use cent",
        ),
        ("simpleshot@center", "expected simpleshot alone, which includes center, "),
    ],
)
def test_a_transform_that_a_method_cannot_stand_on_is_refused_by_its_name(
    name, said, refusal
):
    error = refusal("--mode=compare", f"--methods=leo,{name}")
    assert error.where == f"--methods: {name}" and said in str(error)


def test_a_reproduction_has_five_seeds_unless_told(refusal):
    assert read("--mode=reproduce").arguments["seeds"] == 5
    assert read("--mode=reproduce", "--seeds=1").arguments["seeds"] == 1
    assert refusal("--mode=reproduce", "--seeds=0").where == "--seeds"


@pytest.mark.parametrize(
    ("mode", "flag"),
    [
        ("compare", "--method=maml"),
        ("compare", "--deterministic"),
        ("search", "--random_prior"),
        ("reproduce", "--train_on_val"),
        ("reproduce", "--notrain_on_val"),
    ],
)
def test_a_setting_that_a_mode_gives_to_its_runs_itself_is_refused(mode, flag, refusal):
    error = refusal(f"--mode={mode}", flag)
    assert error.where == "--" + flag.lstrip("-").split("=")[0].removeprefix("no")
    assert f"--mode={mode}" in error.expected


@pytest.mark.parametrize("mode", ["compare", "reproduce"])
def test_jobs_that_train_want_their_data_like_training(mode, refusal):
    assert refusal(f"--mode={mode}", "--preset=mini_1shot").where == "--data_path"


@pytest.mark.parametrize(
    ("flags", "idle"),
    [
        (["--method=ridge", "--jit=on", "--seed=3"], "--jit"),
        (["--mode=compare", "--laplacian_weight=2"], ""),
        (["--mode=compare", "--sklearn_parameters={}"], "--sklearn_parameters"),
        (["--mode=compare", "--ridge_strength=2"], ""),
        (["--mode=search", "--ridge_strength=5"], "--ridge_strength"),
        (["--mode=search", "--methods=leo,ridge", "--ridge_strength=5"], "--ridge_str"),
        (["--images=a", "--first_order", "--num_latents=9"], "--first_order"),
        (["--train_on_val", "--patience=4"], "--patience"),
        (["--deterministic", "--kl_weight=1"], "--kl_weight"),
        (["--random_prior", "--encoder_penalty_weight=1"], "--encoder_penalty_weight"),
        (["--inner_unroll_length=0", "--inner_lr_init=2"], "--inner_lr_init"),
        (["--finetuning_unroll_length=0", "--finetuning_lr_init=1"], "--finetuning_lr"),
        (
            [
                *("--finetuning_unroll_length=0", "--finetuning_lr_init=1"),
                "--test_finetuning_steps=5",
            ],
            "",
        ),
        (
            ["--mode=compare", "--methods=ridge@soft", "--feature_transform=lda"],
            "--feature_transform",
        ),
        (["--mode=compare", "--methods=ridge@soft,leo", "--feature_transform=lda"], ""),
    ],
)
def test_what_has_no_effect_is_told(flags, idle, capsys):
    jobs._say_unused(read(*flags), Console())
    said = capsys.readouterr().err
    assert bool(said) == bool(idle) and (not idle or f": {idle}" in said)
