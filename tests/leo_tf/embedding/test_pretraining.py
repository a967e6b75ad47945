"""Promises of pre-training: it learns, and a stop changes no bit of what comes out."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from leo_tf.console import ProgressLine
from leo_tf.embedding import pretraining
from leo_tf.embedding.pretraining import BACKBONE_FILE, Recipe, held_out, pretrain
from leo_tf.errors import InputError

pytestmark = pytest.mark.long

_RECIPE = Recipe(10, 1, 8, epochs=3, batch_size=18, learning_rate=0.05)


@pytest.fixture(scope="module", autouse=True)
def _eager():
    """To trace a network takes longer than these epochs."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def drawn():
    """Pictures of two classes, bright at the top or at the bottom."""
    random, labels = np.random.default_rng(0), np.arange(40) % 2
    pictures = random.integers(0, 80, (40, 8, 8, 3))
    pictures[labels == 0, :4] += 120
    pictures[labels == 1, 4:] += 120
    return pictures.astype(np.uint8), labels


def _weights(directory):
    model = keras.models.load_model(directory / BACKBONE_FILE)
    return model.get_weights()


@pytest.fixture(scope="module")
def trained(drawn, tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained")
    return pretrain(*drawn, _RECIPE, directory), directory


def test_one_picture_of_ten_of_a_class_is_held_out():
    labels = np.repeat([1, 0, 2], (25, 9, 10))
    np.testing.assert_array_equal(np.flatnonzero(held_out(labels)), [9, 19, 43])


def test_it_learns_and_writes_a_model_of_features(trained, drawn):
    results, directory = trained
    assert results["accuracy"] > 0.8
    features = keras.models.load_model(directory / BACKBONE_FILE)
    assert features(drawn[0][:5].astype("float32")).shape == (5, 64)


def test_stopped_after_any_epoch_it_ends_with_the_same_bits(
    trained, drawn, tmp_path, monkeypatch
):
    save, count = pretraining._Follow.on_epoch_end, itertools.count()

    def save_and_stop(self, epoch, logs=None):
        save(self, epoch, logs)
        if next(count) < 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(pretraining._Follow, "on_epoch_end", save_and_stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pretrain(*drawn, _RECIPE, tmp_path)
    pretrain(*drawn, _RECIPE, tmp_path)
    for mine, theirs in zip(_weights(tmp_path), _weights(trained[1]), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_mixed_precision_trains_other_weights_of_a_float32_network(
    trained, drawn, tmp_path
):
    recipe = _RECIPE._replace(mixed_precision=True)
    network = pretraining._compiled(recipe, 2, 1, synchronized=False)
    computed = {layer.compute_dtype for layer in network.layers if layer.weights}
    assert computed == {"bfloat16", "float32"}  # the latter of the logits
    assert network.get_layer("logits").compute_dtype == "float32"
    assert pretrain(*drawn, recipe, tmp_path)["accuracy"] > 0.8
    kept = keras.models.load_model(tmp_path / BACKBONE_FILE)
    assert {layer.compute_dtype for layer in kept.layers} == {"float32"}
    mine, theirs = kept.get_weights()[0], _weights(trained[1])[0]
    assert np.abs(mine - theirs).max() > 1e-5
    assert np.corrcoef(mine.ravel(), theirs.ravel())[0, 1] > 0.95


def test_another_seed_ends_elsewhere(trained, drawn, tmp_path):
    pretrain(*drawn, _RECIPE._replace(seed=1, epochs=1), tmp_path)
    assert not np.allclose(_weights(tmp_path)[0], _weights(trained[1])[0])


def test_a_stop_ends_the_progress_line_which_hides_the_cursor(
    drawn, tmp_path, monkeypatch
):
    def stop(self, epoch, logs=None):
        raise KeyboardInterrupt

    ended = []
    monkeypatch.setattr(pretraining._Follow, "on_epoch_end", stop)
    monkeypatch.setattr(ProgressLine, "__exit__", lambda *given: ended.append(given))
    with pytest.raises(KeyboardInterrupt):
        pretrain(*drawn, _RECIPE, tmp_path)
    assert len(ended) == 1


def test_a_damaged_state_is_refused_by_its_path(drawn, tmp_path):
    (tmp_path / "state.1.npz").write_bytes(b"PK\3\4 no zip")
    with pytest.raises(
        InputError, match=r"state\.1\.npz: expected the state of a pre-"
    ):
        pretrain(*drawn, _RECIPE, tmp_path)
