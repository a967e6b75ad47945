"""The chain from pictures to an export, and its parts."""

import json
import pathlib
import re
import shlex
import shutil
import types

import numpy as np
import pytest
from PIL import Image

from leo_tf.cli.main import main
from leo_tf.cli.options import OPTIONS
from leo_tf.configs.presets import PRESETS
from leo_tf.configs.schema import Config
from leo_tf.configs.settings import DataConfig
from leo_tf.console import Console
from leo_tf.data_pipeline.images.class_splits import split_pictures
from leo_tf.embedding import stage_times
from leo_tf.embedding.pretraining import RECIPES
from leo_tf.embedding.wide_resnet import multiplications
from leo_tf.errors import FlagError, HeldError, InputError
from leo_tf.experiments import embed as embedding
from leo_tf.experiments import from_images as module
from leo_tf.experiments.embed import pretrain
from leo_tf.experiments.from_images import from_images
from leo_tf.methods.defaults import SLOWER
from leo_tf.methods.variants import variant_named
from leo_tf.runs.directory import RunDirectory

pytestmark = pytest.mark.long

README = (pathlib.Path(__file__).parents[3] / "README.md").read_text("utf-8")
_SMALL = (
    *("--way=2", "--shot=1", "--num_query=2", "--meta_batch_size=2"),
    *("--num_latents=4", "--inner_unroll_length=1", "--finetuning_unroll_length=1"),
    *("--num_steps=4", "--validate_every=2", "--num_val_episodes=4"),
    *("--num_test_episodes=4", "--jit=off", "--quiet"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten classes of five noisy pictures. Each class has its own colour."""
    random, root = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    for name in range(10):
        colour = random.integers(40, 215, 3)
        for i in range(5):
            path = root / f"class{name}" / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            noise = random.integers(-40, 40, (40, 40, 3))
            Image.fromarray(np.uint8(colour + noise)).save(path)
    return root


def test_the_commands_of_the_readme_make_an_export_of_pictures(
    folder, tmp_path, quick_job, monkeypatch, capsys
):
    lines = re.findall(r"^    (python run_leo.py .*pictures.*)$", README, re.MULTILINE)
    train, serve = (shlex.split(line)[1:] for line in lines)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").symlink_to(folder)
    usual = {*module.methods_of(Config())}
    assert {"ridge@soft", "leo", "leo@lda"} <= usual
    assert not {f"{name}@lda" for name in SLOWER} & usual
    monkeypatch.setattr(module, "methods_of", lambda _: ["centroid", "leo@soft"])
    flags = [*_SMALL, "--pretrain_epochs=1", "--image_size=16"]
    command = [*train, *flags, "--class_split=0.6,0.2,0.2"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "LEO" in printed.out and "Nearest centroid" in printed.out
    assert shlex.join(serve) in printed.out and not printed.err
    run = tmp_path / "runs" / "pictures"
    exported = run / "exported" / "1"
    assert (exported / "saved_model.pb").is_file()
    features = np.load(run / "features" / "test.npz")
    assert features["embeddings"].shape == (10, 128)
    # Finished stages are skipped: what they wrote are the same files.
    kept = [run / n for n in ("backbone/backbone.keras", "comparison/results.json")]
    kept += [run / "features" / f"{s}.npz" for s in ("train", "test")]
    times = [path.stat().st_mtime_ns for path in kept]
    assert main(command) == 0
    assert [path.stat().st_mtime_ns for path in kept] == times
    again = capsys.readouterr().out
    assert again.partition("To serve")[0] == printed.out.partition("To serve")[0]
    assert [path.name for path in (run / "exported").iterdir()] == ["1"]
    # Other data, or an export that is damaged, are not passed over.
    (exported / "saved_model.pb").write_bytes(b"damaged")
    results = json.loads(kept[1].read_text())
    results["data"]["test"] = "of others"
    kept[1].write_text(json.dumps(results))
    assert main(command) == 0
    assert sorted(path.name for path in (run / "exported").iterdir()) == ["1", "2"]
    assert json.loads(kept[1].read_text())["data"]["test"] != "of others"


def test_the_export_of_a_chain_takes_pictures_by_weights_of_a_file(
    folder, tmp_path, quick_job, monkeypatch
):
    import keras

    given = {"input_shape": (32, 32, 3), "include_top": False, "pooling": "avg"}
    model = keras.applications.MobileNet(**given, weights=None)
    model.save_weights(tmp_path / "a.weights.h5")
    monkeypatch.setattr(module, "methods_of", lambda _: ["centroid"])
    monkeypatch.setattr(module, "stage_seconds", lambda *given, **named: {})
    settings = {"way": 2, "shot": 1, "num_query": 2, "class_split": "0.6,0.2,0.2"}
    settings |= {"num_val_episodes": 4, "num_test_episodes": 4}
    found = from_images(
        folder,
        tmp_path / "run",
        settings=settings,
        backbone="MobileNet",
        backbone_weights=str(tmp_path / "a.weights.h5"),
        image_size=32,
    )
    metadata = json.loads((found.exported / "export.json").read_text())
    assert metadata["pictures"]["backbone"] == "MobileNet"


def test_a_run_on_pictures_embeds_them_once_into_the_cache(
    folder, tmp_path, quick_job, monkeypatch, capsys
):
    monkeypatch.setenv("LEO_TF_CACHE", str(tmp_path / "cache"))
    flags = ["--mode=train", f"--images={folder}", "--class_split=0.6,0.2,0.2"]
    flags += [*_SMALL, "--method=ridge"]
    for run in ("a", "b"):
        assert main(["run_leo.py", *flags, f"--workdir={tmp_path / run}"]) == 0
    [features] = (tmp_path / "cache" / "features").iterdir()
    test = ["run_leo.py", "--mode=evaluate", f"--workdir={tmp_path / 'a'}"]
    assert main(test) == 0
    # Features of another backbone are refused anywhere. The error names their backbone.
    other, file = tmp_path / "other", features / "embedding.json"
    shutil.copytree(features, other)
    made = json.loads(file.read_text())
    (other / file.name).write_text(json.dumps({**made, "weights": "b"}))
    random = np.random.default_rng(0).uniform(0.1, 1, (10, 640)).astype("float32")
    with np.load(other / "test.npz") as arrays:
        np.savez(other / "test.npz", **{**arrays, "embeddings": random})
    assert main([*test, f"--data_path={other}"]) == 3
    assert "`weights` of its embedding.json: expected" in capsys.readouterr().err
    export = ["--mode=export", test[2], f"--export_dir={tmp_path / 'exported'}"]
    assert main(["run_leo.py", *export]) == 0
    metadata = json.loads((tmp_path / "exported" / "1" / "export.json").read_text())
    assert metadata["embedding"]["backbone"] == "hog"
    assert metadata["embedding"]["weights"] == made["weights"]


@pytest.mark.usefixtures("quick_job")
@pytest.mark.parametrize("split", ["--class_split=0.6,0.2,0.2", "--class_folds=5"])
def test_the_command_that_embedding_prints_trains_on_the_features(
    split, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    flags = ["--mode=embed", f"--images={folder}", "--features_dir=out", split]
    assert main(["run_leo.py", *flags, "--quiet"]) == 0
    line = re.search(r"To train on them: +(.*)", capsys.readouterr().out)[1]
    command = shlex.split(line)
    given = command[
        command.index("--data_path=out" + "/all.npz" * ("folds" in split)) :
    ]
    assert ("--mode=compare" in given) == ("folds" in split)
    method = "--methods=centroid" if "folds" in split else "--method=centroid"
    run = ["--workdir=run", method, *_SMALL]
    assert main(["run_leo.py", *given, *run]) == 0


def test_a_class_of_one_picture_is_dropped_if_small_ones_are():
    splits = ["train"] * 3 + ["val"] * 2 + ["test"] * 2
    labels = np.repeat(range(7), [1, 6, 6, 6, 6, 6, 6])
    names = [f"c{i}" for i in range(7)]
    pictures = types.SimpleNamespace(
        labels=labels, splits=splits, source="here", class_names=names
    )
    config = Config().replace(way=2, test_way=2)
    with pytest.raises(InputError, match=r"c0: expected more than 1.*--drop_small_c"):
        module._that_fits(config, pictures, {})
    config = config.replace(drop_small_classes=True)
    assert module._that_fits(config, pictures, {}).episodes.num_query == 5
    with pytest.raises(InputError, match="classes for train: expected 3 or more"):
        module._that_fits(config.replace(way=3), pictures, {})


def test_methods_are_different_whatever_the_transform_that_all_share():
    for shared in ("none", "lda", "soft"):
        config = Config().replace(feature_transform=shared)
        names = module.methods_of(config)
        settings = [config.replace(**variant_named(name).settings) for name in names]
        assert len({json.dumps(each.to_dict()) for each in settings}) == len(names) > 5
        learned = [each for each in settings if each.methods.method == "leo"]
        kinds = {each.features.feature_transform for each in learned}
        assert len(kinds) == 2 and shared in kinds


def test_pretraining_that_has_not_begun_takes_back_what_stopped_it(folder, tmp_path):
    pictures = tmp_path / "pictures"
    shutil.copytree(folder, pictures)
    data = DataConfig(class_split="0.6,0.2,0.2", split_seed=1)
    name = embedding._classes_of(split_pictures(pictures, data), "train")[0]
    (pictures / name / "0.png").write_bytes(b"no picture")
    options = {"data": data, "image_size": 16, "epochs": 1}
    with pytest.raises(InputError, match=r"0\.png"):
        embedding.pretrain(pictures, tmp_path / "run", **options)
    done = embedding.pretrain(
        pictures, tmp_path / "run", skip_bad_images=True, **options
    )
    assert done["rows"] == 29 and done["skip_bad_images"]
    with pytest.raises(InputError, match="`skip_bad_images`: expected True"):
        embedding.pretrain(pictures, tmp_path / "run", **options)
    options["skip_bad_images"] = True
    with pytest.raises(InputError, match="`epochs`: expected 1, received 2"):
        embedding.pretrain(pictures, tmp_path / "run", **{**options, "epochs": 2})
    with pytest.raises(InputError, match="`mixed_precision`: expected False"):
        embedding.pretrain(pictures, tmp_path / "run", mixed_precision=True, **options)


def test_pictures_of_which_none_can_be_read_are_refused(folder, tmp_path):
    pictures = tmp_path / "pictures"
    shutil.copytree(folder, pictures)
    for path in pictures.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="train: expected pictures that can be read"):
        embedding.pretrain(pictures, tmp_path / "run", skip_bad_images=True)


def test_a_split_without_classes_is_refused_before_anything_is_embedded(
    folder, tmp_path
):
    for split, name in (("train", "class0"), ("test", "class1")):
        shutil.copytree(folder / name, tmp_path / "pictures" / split / name)
    with pytest.raises(InputError, match="classes for val: expected one or more"):
        embedding.embed(tmp_path / "pictures", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_backbone_that_is_a_name_is_no_file_here(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained_on = [path.name for path in folder.iterdir()]
    (tmp_path / "pretraining.json").write_text(json.dumps({"trained_on": trained_on}))
    embedding.embed(folder, "out", backbone="hog")
    assert (tmp_path / "out" / "test.npz").is_file()


def test_it_says_at_start_how_long_each_stage_that_is_left_will_take(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(stage_times, "products_a_second", lambda: 1e11)
    monkeypatch.setattr(stage_times, "decoding_seconds", lambda pictures, side: 1e-3)
    pictures = split_pictures(folder, DataConfig(class_split="0.6,0.2,0.2"))
    config, methods = PRESETS["glyphs"].config(), ["centroid", "leo"]
    recipe = RECIPES["small"]._replace(epochs=10)
    times = stage_times.stage_seconds(pictures, config, methods, recipe=recipe)
    assert list(times) == ["backbone", "features", "comparison"]
    forward = 2 * multiplications(10, 2, 32) / (0.4 * 1e11)
    assert np.isclose(times["backbone"], 30 * (1e-3 + 10 * 3 * forward))
    assert np.isclose(times["features"], 50 * (1e-3 + forward))
    given = stage_times.stage_seconds(
        pictures, config, ["centroid"], backbone=("hog", None, None), views="multiview"
    )
    assert list(given) == ["features", "comparison"] and given["features"] > 50e-3
    assert given["comparison"] < times["comparison"] / 2  # nothing is trained
    said: list[str] = []
    monkeypatch.setattr(Console, "say", lambda self, text: said.append(text))
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "backbone.keras").touch()
    module._say_times(times, tmp_path, Console(quiet=False))
    (line,) = said
    assert "features about" in line and "comparison at most" in line
    assert "backbone" not in line
    assert (
        stage_times.in_words(0.2) == "about 1 s"
        and stage_times.in_words(150) == "about 2 min"
    )
    assert stage_times.in_words(3 * 3600) == "about 3.0 h"


@pytest.mark.parametrize(("given", "seed"), [({"seed": 7}, 7), ({}, 0)])
def test_a_seed_is_that_of_the_pre_training(folder, tmp_path, monkeypatch, given, seed):
    def stop(*_, seed, **__):
        raise KeyboardInterrupt(seed)

    monkeypatch.setattr(module, "pretrain", stop)
    with pytest.raises(KeyboardInterrupt) as caught:
        from_images(folder, tmp_path, settings={"way": 2}, **given)
    assert caught.value.args == (seed,)


@pytest.mark.parametrize("given", ["glyphs", "folder"])
def test_only_pictures_that_are_no_characters_are_mirrored(
    folder, tmp_path, monkeypatch, given
):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(embedding, "decoded", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain("glyphs" if given == "glyphs" else folder, tmp_path)
    job = json.loads((tmp_path / "pretraining.json").read_text())
    assert job["recipe"]["flip"] is (given == "folder")


def test_the_split_that_nobody_asked_for_is_said_once(
    folder, tmp_path, monkeypatch, capsys
):
    def only_splits(images, *_, console, **__):
        split_pictures(images, None, console)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "pretrain", only_splits)
    with pytest.raises(KeyboardInterrupt):
        from_images(folder, tmp_path, settings={"way": 2}, console=Console())
    assert capsys.readouterr().err.count("--class_split=0.64,0.16,0.2") == 1


def test_pictures_are_found_and_what_is_skipped_is_said_once_for_all_stages(
    folder, tmp_path, monkeypatch, capsys
):
    shutil.copytree(folder, pictures := tmp_path / "pictures")
    (pictures / "class0" / "notes.txt").write_text("no picture")
    monkeypatch.setattr(module, "methods_of", lambda _: ["centroid"])
    settings = {"way": 2, "num_query": 2, "class_split": "0.6,0.2,0.2"}
    settings |= {"num_val_episodes": 4, "num_test_episodes": 4}
    given = {"settings": settings, "image_size": 32, "epochs": 1}
    found = from_images(pictures, tmp_path / "run", **given, console=Console())
    assert capsys.readouterr().err.count("notes.txt") == 1
    with np.load(tmp_path / "run" / "features" / "val.npz") as arrays:
        assert len(arrays["labels"]) == 10
    assert found.exported.is_dir()


def test_classes_are_split_by_folders_or_by_shares(folder):
    pictures = split_pictures(folder, DataConfig(class_split="0.6,0.2,0.2"))
    assert sorted(pictures.splits) == ["test"] * 2 + ["train"] * 6 + ["val"] * 2
    usual = split_pictures(folder)
    assert sorted(usual.splits) == ["test"] * 2 + ["train"] * 6 + ["val"] * 2
    with pytest.raises(FlagError, match="--fold"):
        split_pictures(folder, DataConfig(class_folds=3))
    fold = split_pictures(folder, DataConfig(class_folds=5, fold=1))
    assert sorted(fold.splits) == ["test"] * 2 + ["train"] * 6 + ["val"] * 2


def test_folds_share_the_classes_of_one_file_of_features(
    folder, tmp_path, quick_job, capsys
):
    features, workdir = tmp_path / "features", tmp_path / "run"
    pictures = [f"--images={folder}", f"--features_dir={features}"]
    job = ["--mode=compare", "--jobs=0", "--methods=centroid", *_SMALL]
    command = ["run_leo.py", *pictures, *job, "--class_folds=3"]
    command.append(f"--workdir={workdir}")
    assert main(command) == 0
    assert "Nearest centroid" in capsys.readouterr().out
    with np.load(features / "all.npz") as arrays:
        assert arrays["embeddings"].shape == (50, 640)
    assert not (features / "train.npz").exists()
    configs = workdir.glob("fold_*/centroid/config.json")
    folds = [json.loads(path.read_text())["data"]["fold"] for path in configs]
    assert sorted(folds) == [0, 1, 2]
    # A single fold is an ordinary split.
    one = [*pictures[:1], f"--features_dir={tmp_path / 'one'}", "--class_folds=5"]
    assert main(["run_leo.py", "--mode=embed", *one, "--fold=1", "--quiet"]) == 0
    tested = split_pictures(folder, DataConfig(class_folds=5, fold=1))
    with np.load(tmp_path / "one" / "test.npz") as arrays:
        classes = {*arrays["labels"].tolist()}
    names = zip(tested.class_names, tested.splits)
    assert classes == {name for name, split in names if split == "test"}


def test_no_two_jobs_write_in_one_directory(folder, tmp_path):
    place = tmp_path / "out"
    with RunDirectory(place).held():
        for job in (embedding.embed, embedding.pretrain):
            with pytest.raises(HeldError, match="expected no other process"):
                job(folder, place)
        assert [path.name for path in place.iterdir()] == [".lock"]
    found = embedding.embed(folder, place)
    with RunDirectory(place).held():  # by a training on them, perhaps
        assert embedding.embed(folder, place) == found


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"way": 3}, r"classes for val: expected 3 or more, .* --way=2 needs fewer"),
        ({"way": 2, "shot": 5}, "expected more than 5 pictures, for 5-shot episodes"),
        ({"way": "2-7"}, "classes for train: expected 7 or more"),
    ],
)
def test_too_little_is_refused_before_anything_is_trained(
    folder, tmp_path, settings, message
):
    with pytest.raises(InputError, match=message):
        from_images(folder, tmp_path / "run", settings=settings)
    assert not (tmp_path / "run").exists()


def test_help_says_the_defaults_of_the_recipes():
    rates = {recipe.learning_rate for recipe in RECIPES.values()}
    assert OPTIONS["pretrain_lr"].notes == tuple(f"default: {rate}" for rate in rates)
    assert all(recipe.flip for recipe in RECIPES.values())
    assert OPTIONS["flip"].notes == ("default: true, except for glyphs",)


@pytest.mark.parametrize(
    "flags, error",
    [
        (["--backbone=hog"], "--backbone: expected --images too"),
        (
            ["--mode=train", "--images=x", "--data_path=y"],
            "--data_path: expected no --data_path with --images, received 'y'.",
        ),
        (["--mode=embed", "--images=x"], "--features_dir: expected a directory"),
        (["--mode=pretrain", "--images=x"], "--workdir: expected a directory for the"),
        (["--mode=embed", "--images=x", "--features_dir=y", "--way=3"], "--way: exp"),
        (["--mode=pretrain", "--images=x", "--workdir=y", "--backbone=hog"], "wrn_"),
        (["--images=/no/such"], "error: /no/such"),
        (["--images=x", "--preset=mini_1shot"], "--preset: expected no --preset"),
        (["--images=x", "--backbone=hog", "--pretrain_epochs=3"], "--pretrain_epochs"),
        (["--images=x", "--backbone=hog", "--noflip"], "--flip: expected none with"),
        (["--images=x", "--backbone=hog", "--recipe=paper"], "--recipe: expected none"),
        (["--images=x", "--backbone=hog", "--mixed_precision"], "--mixed_precision: "),
        (
            ["--mode=pretrain", "--images=x", "--workdir=y", "--strategy=multi_worker"],
            "--strategy: expected none or mirrored: a backbone is trained on one",
        ),
        (
            ["--images=x", "--backbone_weights=imagenet"],
            "--backbone_weights: expected none, because the backbone is trained here",
        ),
        (["--images=x", "--train_on_val"], "expected no --train_on_val with --mode"),
        (["--images=x", "--val_classes=3"], "expected no --val_classes with --images"),
        (["--images=x", "--embedding_crop=multiview"], "--views chooses the crop"),
    ],
)
def test_flags_that_do_not_go_together_are_one_line(flags, error, capsys):
    assert main(["run_leo.py", *flags]) in (2, 3)
    line = capsys.readouterr().err
    assert error in line and "Traceback" not in line


def test_texts_of_a_csv_file_are_embedded_by_a_callable(tmp_path, monkeypatch, capsys):
    code = "def embed(texts):\n    return [[len(t), t.count('a'), 1] for t in texts]\n"
    (tmp_path / "my_counts.py").write_text(code)
    lines = [f'"{"a" * i}, {name} {i}",{name}' for name in "pqrstu" for i in range(3)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *lines]))
    monkeypatch.chdir(tmp_path)
    flags = ["--mode=embed", "--items=texts.csv", "--features_dir=out", "--quiet"]
    flags += ["--class_split=0.34,0.33,0.33"]
    assert main(["run_leo.py", *flags, "--backbone=my_counts:embed"]) == 0
    with np.load("out/train.npz") as train:
        np.testing.assert_array_equal(train["embeddings"][:3, 1], [0, 1, 2])
        assert train["embeddings"].shape == (6, 3)
        assert train["names"][2].endswith(f": aa, {train['labels'][2]} 2")
    assert main(["run_leo.py", *flags[:2], "--features_dir=b", "--backbone=hog"]) == 2
    assert "--backbone: expected module:callable" in capsys.readouterr().err
    chain = ["run_leo.py", *flags[1:2], flags[-1], "--workdir=c"]
    for backbone in ([], ["--backbone=wrn_10_1"]):
        assert main([*chain, *backbone]) == 2
        assert "--backbone: expected module:callable" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_killed_between_any_two_writes_pre_training_ends_the_same(
    folder, tmp_path, quick_job, monkeypatch, capsys
):
    flags = ["run_leo.py", "--mode=pretrain", f"--images={folder}", "--quiet"]
    flags += ["--pretrain_epochs=2", "--image_size=16", "--class_split=0.6,0.2,0.2"]
    write = embedding.write_file

    def dies(path, content):
        if b"results" in content:
            raise KeyboardInterrupt
        write(path, content)

    assert main([*flags, f"--workdir={tmp_path / 'a'}"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(embedding, "write_file", dies)
        assert main([*flags, f"--workdir={tmp_path / 'b'}"]) == 130
    assert main([*flags, f"--workdir={tmp_path / 'b'}"]) == 0
    # Classes of five pictures are too small to hold any out.
    assert capsys.readouterr().out.count("Accuracy on pictures trained on: ") == 2
    one, other = (
        json.loads((tmp_path / d / "pretraining.json").read_text()) for d in "ab"
    )
    assert one == other and one["rows"] == 30
    assert not [*tmp_path.glob("*/state*"), *tmp_path.glob("*/pictures.npy")]
    # Another split of the classes must not test what it was trained on.
    embed = ["run_leo.py", "--mode=embed", flags[2], f"--backbone={tmp_path / 'a'}"]
    embed += ["--quiet", f"--features_dir={tmp_path / 'features'}"]
    assert main([*embed, flags[-1], "--split_seed=1"]) == 3
    assert "`trained_on`: expected none of the classes" in capsys.readouterr().err
    assert main([*embed, flags[-1]]) == 0
    (tmp_path / "b" / "pretraining.json").write_text("{")
    assert main([*flags, f"--workdir={tmp_path / 'b'}"]) == 3
    assert (
        "pretraining.json: expected a file of --mode=pretrain"
        in capsys.readouterr().err
    )
