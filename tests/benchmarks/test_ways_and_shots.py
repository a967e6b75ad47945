"""The table of ways and shots: its cells, and the lead of the best LEO, by loops."""

import numpy as np
import pytest

from benchmarks import ways_and_shots
from leo_tf.configs.schema import Config
from leo_tf.data_pipeline import dataset
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid

TITLES = ["LEO, mixed", "centroid", "LEO, 5-way", "ridge"]


def test_the_last_column_is_the_best_leo_minus_the_best_other_paired():
    random = np.random.default_rng(0)
    found = {title: random.random(20) for title in TITLES}
    found["LEO, 5-way"] = found["LEO, 5-way"] + 1
    found["ridge"] = found["ridge"] + 2
    table = ways_and_shots.table({"7-way 1-shot": found}, TITLES)
    [row] = table.rows
    lead = found["LEO, 5-way"] - found["ridge"]
    width = 1.959964 * lead.std(ddof=1) / len(lead) ** 0.5
    assert row[0] == "7-way 1-shot"
    assert row[2].startswith(f"{100 * found['centroid'].mean():.2f} ± ")
    assert row[-1] == f"{100 * lead.mean():+.2f} ± {100 * width:.2f}"
    alone = ways_and_shots.table({"": found}, ["centroid", "ridge"])
    assert alone.columns == ("test", "centroid", "ridge")


def test_a_cell_is_of_the_way_and_shot_it_says_with_fewer_episodes_of_many_classes(
    tiny_data, monkeypatch
):
    config = Config().replace(
        dataset_name="tiny", data_path=str(tiny_data), test_num_query=2
    )
    split = dataset.load(config.replace(way=2), ["test"])["test"]
    asked = []
    whole = dataset.evaluation_episodes

    def recorded(config, split, count):
        asked.append((config.episodes.test_way, config.episodes.test_shot, count))
        return whole(config, split, count)

    monkeypatch.setattr(ways_and_shots.dataset, "evaluation_episodes", recorded)
    for way, shot, count in ((2, 1, 40), (6, 3, 33)):
        found = ways_and_shots.measured(NearestCentroid(), config, split, way, shot, 40)
        assert asked.pop() == (way, shot, count) and len(found) == count
        assert 1 / way < np.mean(found) <= 1
    assert ways_and_shots.sizes([1, 5, 20], 7) == [1, 5]
    with pytest.raises(SystemExit):
        monkeypatch.setattr("sys.argv", ["ways_and_shots.py", "--methods", "nothing"])
        ways_and_shots.main()
