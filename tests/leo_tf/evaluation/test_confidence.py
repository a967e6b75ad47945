"""Temperature, "none of these" and sets of classes: against loops and by simulation.

Shapes: E episodes, N way, Q queries per class, U classes outside an episode.
"""

import json
import math
import types

import numpy as np
import pytest
from saved_runs import results_of
from tiny_cases import make_leo

from leo_tf.configs.schema import Config
from leo_tf.console import SILENT
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.episode import Episode
from leo_tf.errors import FlagError, InputError
from leo_tf.evaluation import confidence
from leo_tf.evaluation.calibration import best_temperature, of_right
from leo_tf.evaluation.confidence import LEVELS, Confidence
from leo_tf.evaluation.open_episodes import (
    Answers,
    answers,
    answers_as_tested,
    open_episodes,
)
from leo_tf.experiments.evaluate import evaluate as evaluate_run
from leo_tf.experiments.open_set import score_open
from leo_tf.methods.inductive.linear import LinearRegression, ridge
from leo_tf.methods.query_aware.bd_cspn import BDCSPN
from leo_tf.methods.query_aware.pt_map import PTMAP
from leo_tf.model.learner import adapt_and_score
from leo_tf.runs.fitted import basis_of
from leo_tf.runs.run import load_run

N, Q, U = 4, 6, 3


def make_answers(episodes, seed=0, too_sure=1.0, apart=1.0, uneven=0.0):
    """Labels drawn from the softmax of logits, which then are made too sure.

    Where `uneven`, episodes are of unequal difficulty, and the logits do not tell.
    """
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=[episodes, N, Q, N])
    # All classes are alike: whichever is drawn takes the place of the right one.
    noise = random.gumbel(size=logits.shape)
    clear = np.exp(uneven * random.normal(size=[episodes, 1, 1, 1]))
    drawn = (clear * logits + noise).argmax(axis=-1)  # [E, N, Q], of the softmax
    right = np.arange(N)[:, np.newaxis]
    turned = (np.arange(N) + (drawn - right)[..., np.newaxis]) % N
    inside = np.take_along_axis(logits, turned, axis=-1)
    outside = random.normal(size=[episodes, U, Q, N])
    cosines = random.random([episodes, N, Q]) + apart, random.random([episodes, U, Q])
    inside, outside = too_sure * inside, too_sure * outside
    return Answers(inside, inside, outside, *cosines)


def won_by(score, episodes, seed=0):
    """Answers three times too sure, in which a score tells those outside best."""
    found = make_answers(episodes, seed, 3.0, apart=float(score == "cosine"))
    outside = found.outside
    if score == "logit":  # each is as probable as before
        outside = outside - 3
    elif score == "energy":  # one as large as any inside, and no other beside it
        outside = np.sort(outside, axis=-1)
        outside += np.array([-30] * (N - 1) + [3])
    return found._replace(outside=outside)


SCORES = pytest.mark.parametrize("score", confidence.SCORES)


def fit(found):
    return Confidence(7, "digest", N, 1, len(found.inside), **confidence.fit_to(found))


def test_the_temperature_is_what_the_logits_are_too_large_by():
    for too_sure in (0.2, 1.0, 5.0):
        found = fit(make_answers(400, too_sure=too_sure))
        assert found.temperature == pytest.approx(too_sure, rel=0.05)


def test_the_temperature_is_best_of_all():
    logits = make_answers(50, too_sure=3.0).inside
    best = best_temperature(logits)

    def nll(temperature):
        scaled = logits / temperature
        losses = [
            np.log(np.exp(scaled[e, n, q]).sum()) - scaled[e, n, q, n]
            for e, n, q in np.ndindex(*scaled.shape[:3])
        ]
        return np.mean(losses)

    for other in (0.97 * best, 1.03 * best):
        assert nll(best) < nll(other)


def test_the_area_counts_pairs_and_half_of_ties():
    random = np.random.default_rng(0)
    inside = random.integers(0, 6, size=[5, 8]).astype(float)
    outside = random.integers(0, 5, size=[5, 7]).astype(float)
    pairs = inside[:, :, np.newaxis] - outside[:, np.newaxis]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean(axis=(1, 2))
    np.testing.assert_allclose(confidence._auroc(inside, outside), expected, rtol=1e-12)
    same = np.ones([2, 3])
    np.testing.assert_allclose(confidence._auroc(same, same), 0.5)


@SCORES
def test_scores_and_rates_equal_loops_over_queries(score):
    found, other = won_by(score, 30), won_by(score, 20, seed=1)
    fitted = fit(found)
    assert fitted.score == score and fitted.temperature == pytest.approx(3.0, rel=0.1)
    tested = confidence.tested(other, fitted)
    scaled = other.inside / fitted.temperature
    strange = other.outside / fitted.temperature
    sides = {
        "probability": [
            np.exp(x - np.log(np.exp(x).sum(-1, keepdims=True))).max(-1)
            for x in (scaled, strange)
        ],
        "logit": [x.max(-1) for x in (scaled, strange)],
        "energy": [np.log(np.exp(x).sum(-1)) for x in (scaled, strange)],
        "cosine": [other.cosine_inside, other.cosine_outside],
    }
    for name, (inside, outside) in sides.items():
        areas, rates = [], []
        for mine, others in zip(inside, outside):
            mine, others = mine.ravel(), others.ravel()
            areas.append(np.mean(mine[:, np.newaxis] > others))
            rates.append(np.mean(others >= np.quantile(mine, 0.05)))
        assert tested.auroc[name].mean == pytest.approx(np.mean(areas))
        assert tested.fpr[name].mean == pytest.approx(np.mean(rates))
    assert (tested.auroc["cosine"].mean == 1.0) == (score == "cosine")  # as made
    inside, outside = sides[fitted.score]
    threshold = fitted.known[10]  # the quantile of 5 %
    assert tested.false_alarms.mean == pytest.approx((inside < threshold).mean())
    assert tested.found.mean == pytest.approx((outside < threshold).mean())


def test_the_best_score_of_those_from_logits_is_taken():
    found = make_answers(40)
    # Those outside have one large logit beside others: their largest does not tell
    # them, and their probability is larger than of any inside.
    outside = np.full_like(found.outside, -30.0)
    outside[..., 0] = 3.0
    fitted = fit(found._replace(outside=outside))
    assert fitted.score == max(confidence.SCORES, key=lambda name: fitted.auroc[name])
    assert fitted.auroc["probability"] < 0.1 < fitted.auroc[fitted.score]


@SCORES
def test_false_alarms_on_what_was_fitted_are_as_many_as_asked_for(score):
    found = won_by(score, 100)
    tested = confidence.tested(found, fit(found))
    assert tested.score == score
    assert tested.false_alarms.mean == pytest.approx(0.05, abs=0.002)


def test_thresholds_are_of_requests_with_others_and_the_rest_of_those_without():
    found = make_answers(100, apart=0.0)
    strange = np.random.default_rng(1).normal(size=found.inside.shape)
    found = found._replace(mixed=found.inside / 2 + strange)
    fitted, alone = fit(found), fit(found._replace(mixed=found.inside))
    assert fitted.score != "cosine" and fitted.known != alone.known
    tested = confidence.tested(found, fitted)
    assert tested.false_alarms.mean == pytest.approx(0.05, abs=0.002)
    assert (fitted.temperature, fitted.least) == (alone.temperature, alone.least)


@pytest.mark.parametrize("episodes", [12, 30])
def test_sets_hold_the_right_class_as_often_as_asked_for_in_new_episodes(episodes):
    """The promise is of the mean over what may be fitted to, also where that is few."""
    held, sizes = [], []
    for seed in range(300):
        fitted = fit(make_answers(episodes, seed=2 * seed, uneven=2.0))
        others = make_answers(10, seed=2 * seed + 1, uneven=2.0)
        tested = confidence.tested(others, fitted)
        held.append(tested.coverage.mean)
        sizes.append(tested.size.mean)
    assert 0.9 < np.mean(held) < 0.9 + 1.5 / episodes
    assert 1 < np.mean(sizes) <= N


def test_a_set_that_must_hold_the_right_class_holds_all():
    assert fit(make_answers(30)).least[-1] == 0.0
    # With four episodes nothing is known of what happens once in ten.
    few = fit(make_answers(4)).least
    assert few[LEVELS.tolist().index(0.9)] == 0.0 < few[LEVELS.tolist().index(0.5)]
    assert np.all(np.diff(few) <= 0)


def test_on_a_tie_the_logit_tells_who_is_known_not_the_probability():
    found = make_answers(9)
    tied = found._replace(outside=found.outside - 1e3, mixed=found.mixed + 1e3)
    apart = np.where(np.arange(N) == 0, 60.0, 0.0)  # as sure as can be
    tied = tied._replace(mixed=tied.mixed + apart, outside=0 * tied.outside - 1e3)
    fitted = fit(tied._replace(cosine_inside=1 + found.cosine_inside))
    assert set(fitted.auroc.values()) == {1.0} and fitted.score == "logit"


def test_temperature_and_sets_are_fitted_to_queries_unbalanced_as_in_tests(tiny_data):
    changes = {"query_dirichlet": 0.3, "num_query": 3, "test_num_query": 3}
    config = config_of(tiny_data, num_val_episodes=40, **changes)
    split, learner = dataset.load(config, ["val"])["val"], PTMAP(scale=3.0)
    [episode] = dataset.evaluation_episodes(config, split, 40, together=True)
    labels = np.asarray(episode.query_labels)
    balanced = np.broadcast_to(np.arange(3)[:, np.newaxis], labels[0].shape)
    assert (labels != balanced).mean() > 0.3
    logits = adapt_and_score(learner, episode)[1].numpy()
    found = answers_as_tested(learner, config, split, 40)
    right = np.take_along_axis(logits, labels[..., np.newaxis], axis=-1)[..., 0]
    np.testing.assert_allclose(of_right(found.inside), right, rtol=1e-6)
    np.testing.assert_allclose(np.sort(found.inside), np.sort(logits), rtol=1e-6)
    alike = answers_as_tested(learner, config.replace(query_dirichlet=None), split, 40)
    np.testing.assert_array_equal(found.mixed, alike.mixed)
    fitted = confidence.fit(learner, config, split, 7)

    def nll(temperature):
        scaled = logits / temperature
        return np.mean(np.log(np.exp(scaled).sum(-1)) - right / temperature)

    best = min(np.geomspace(0.01, 100, 2001), key=nll)
    assert fitted.temperature == pytest.approx(best, rel=0.05)
    measured = confidence.tested(found, fitted)
    given = {"": learner}, config.replace(num_test_episodes=40), split, SILENT
    [whole] = score_open(*given, {"": fitted}, True).values()
    assert whole.coverage == measured.coverage
    assert whole.coverage != confidence.tested(alike, fitted).coverage
    wrong = confidence.fit_to(alike)["temperature"]
    assert abs(np.log(wrong / best)) > 0.3, "balanced queries would mislead"


def config_of(tiny_data, **changes):
    given = {"dataset_name": "tiny", "data_path": str(tiny_data), "dtype": "float64"}
    given |= {"way": 3, "test_num_query": 2, "num_val_episodes": 6}
    return Config().replace(**{**given, **changes})


def test_answers_are_those_to_episodes_of_the_first_classes(tiny_data):
    config = config_of(tiny_data, way=2)
    split = dataset.load(config, ["val"])["val"]
    size = split.embedding_size
    learner = LinearRegression(ridge, 1.0)
    drawn = open_episodes(config, split, 6)
    [wide] = drawn
    assert wide.query_inputs.shape == [6, 4, 2, size]
    found = answers({"ridge": learner}, drawn, 2)["ridge"]
    narrow = wide._replace(
        support_inputs=wide.support_inputs[:, :2],
        support_labels=wide.support_labels[:, :2],
        query_inputs=wide.query_inputs[:, :2],
    )
    logits = adapt_and_score(learner, narrow)[1].numpy()
    np.testing.assert_allclose(found.inside, logits, rtol=1e-9)
    strange = narrow._replace(query_inputs=wide.query_inputs[:, 2:])
    logits = adapt_and_score(learner, strange)[1].numpy()
    np.testing.assert_allclose(found.outside, logits, rtol=1e-9)
    means = wide.support_inputs.numpy()[:, :2, 0]  # one shot
    cosines = np.einsum("bnqd,bmd->bnqm", wide.query_inputs, means).max(-1)
    np.testing.assert_allclose(found.cosine_inside, cosines[:, :2], rtol=1e-9)
    np.testing.assert_allclose(found.cosine_outside, cosines[:, 2:], rtol=1e-9)


def test_without_other_classes_no_score_is_chosen_and_nothing_without_numbers(
    tiny_data,
):
    config = config_of(tiny_data)
    split = dataset.load(config, ["val"])["val"]
    leo = make_leo(size=split.embedding_size)
    classes = len(split.class_names)
    assert confidence.fit(leo, config, split, 3).step == 3
    whole = config.replace(test_way=classes)
    alone = confidence.fit(leo, whole, split, 3)
    assert alone.auroc == {} and alone.score == "logit" and alone.temperature > 0
    assert Confidence.from_dict(alone.as_dict()) == alone
    leo.decoder.kernel.assign(math.nan * leo.decoder.kernel)
    assert confidence.fit(leo, config, split, 3) is None


def test_what_is_kept_is_read_again_and_nothing_else_is():
    fitted = fit(make_answers(10))
    values = json.loads(json.dumps(fitted.as_dict()))
    assert Confidence.from_dict(values) == fitted
    for change in (
        {"temperature": 0.0},
        {"temperature": "1"},
        {"known": [1.0]},
        {"known": [math.nan] * len(LEVELS)},
        {"least": None},
        {"score": "distance"},
        {"auroc": {"logit": 0.5}},
        {"step": 1.5},
    ):
        with pytest.raises(ValueError):
            Confidence.from_dict({**values, **change})
    for wrong in (None, [], {}, {**values, "more": 1}):
        with pytest.raises(ValueError):
            Confidence.from_dict(wrong)


def test_a_run_keeps_it_and_tells_what_the_temperature_changes(trained):
    run = load_run(trained)
    best = run.checkpoints.best()
    fitted = run.confidence(best)
    assert fitted.step == best.step and fitted.episodes > 1
    results = results_of(trained)["accuracy"]["leo"]
    assert results["temperature"] == fitted.temperature
    assert results["nll_scaled"] != results["nll"]


def test_of_another_checkpoint_than_the_best_nothing_is_kept(trained_copy):
    run = load_run(trained_copy)
    path = trained_copy / "confidence.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "step": values["step"] + 1}))
    assert run.confidence(run.checkpoints.best()) is None
    path.write_text("{")
    with pytest.raises(InputError) as caught:
        run.confidence(run.checkpoints.best())
    assert str(path) in str(caught.value) and "Remove it" in str(caught.value)
    path.unlink()
    with pytest.raises(FlagError) as caught:
        evaluate_run(trained_copy, open_set=True)
    assert "a run that was fitted" in str(caught.value)


@pytest.mark.usefixtures("quick_job")
def test_a_test_tells_how_well_other_classes_are_told(trained):
    found = evaluate_run(trained, open_set=True).open_set
    assert set(found.auroc) == set(confidence.SCORES)
    assert 0 < found.auroc["cosine"].mean < 1 and found.coverage.mean > 0.5
    assert evaluate_run(trained).open_set is None


@pytest.mark.usefixtures("quick_job")
def test_without_classes_outside_an_episode_it_cannot_be_tested(trained):
    with pytest.raises(FlagError) as caught:
        evaluate_run(trained, open_set=True, test_way=7)
    assert caught.value.where == "--open_set" and "more than 7" in str(caught.value)


@pytest.mark.usefixtures("quick_job")
def test_the_command_prints_the_table_that_was_asked_for(trained, evaluate, capsys):
    assert evaluate(trained, "--open_set") == 0
    told = capsys.readouterr().out
    assert "classes outside each episode" in told
    assert "In %, by the score that was best on validation episodes:" in told
    assert evaluate(trained) == 0
    assert "outside each episode" not in capsys.readouterr().out


def test_answers_without_a_mistake_are_not_as_good_as_certain():
    logits = np.zeros([20, N, Q, N])
    for n in range(N):
        logits[:, n, :, n] = 3.0
    # Of 480 queries and one by chance, a wrong class has a share of 1 in 4 * 481.
    expected = 3.0 / math.log(4 * 481 - 3)
    assert best_temperature(logits) == pytest.approx(expected, rel=1e-3)


def test_a_method_that_learns_from_queries_is_asked_those_inside_alone_too(tiny_data):
    config = config_of(tiny_data, way=2)
    split = dataset.load(config, ["val"])["val"]
    drawn, method = open_episodes(config, split, 6), BDCSPN(5.0)
    [wide] = drawn
    found = answers({"": method}, drawn, 2)[""]
    narrow = Episode(*(part[:, :2] for part in wide))
    alone = adapt_and_score(method, narrow)[1].numpy()
    np.testing.assert_allclose(found.inside, alone, rtol=1e-9)
    together = narrow._replace(
        query_inputs=wide.query_inputs, query_labels=wide.query_labels
    )
    both = adapt_and_score(method, together)[1].numpy()
    np.testing.assert_allclose(found.mixed, both[:, :2], rtol=1e-9)
    np.testing.assert_allclose(found.outside, both[:, 2:], rtol=1e-9)
    assert np.abs(found.mixed - found.inside).max() > 0.01


@pytest.mark.parametrize("mode", ["compare", "evaluate"])
def test_what_cannot_be_tested_is_refused_before_anything_is_trained(
    mode, train, trained, tmp_path, capsys
):
    flags = [f"--workdir={trained}", "--mode=evaluate", "--test_way=7"]
    said = "--open_set: expected more than 7 test classes"
    if mode == "compare":
        flags = [f"--workdir={tmp_path}/job", "--mode=compare", "--train_on_val"]
        said = "--open_set: expected validation classes to fit it to"
        assert train(tmp_path / "job", *flags, "--open_set") != 0
    else:
        from leo_tf.cli.main import main

        assert main(["run_leo.py", *flags, "--open_set"]) != 0
    assert said in capsys.readouterr().err
    assert not (tmp_path / "job" / "leo").exists()


def test_a_fit_is_made_anew_if_anything_changes_that_an_answer_depends_on():
    split, config = types.SimpleNamespace(digest="d"), Config()
    basis = basis_of(config, split, 3)
    for change in (
        {"test_finetuning_steps": 9},
        {"mixed_precision": True},
        {"test_way": 3},
        {"feature_power": 0.5},
        {"ensemble": "ridge"},
        {"num_val_episodes": 7},
        {"drop_small_classes": True},
    ):
        assert basis_of(config.replace(**change), split, 3) != basis, change
    assert basis_of(config, split, 4) != basis
    assert basis_of(config.replace(log_every=7), split, 3) == basis
