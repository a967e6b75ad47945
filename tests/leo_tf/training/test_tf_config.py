"""TF_CONFIG is read as TensorFlow reads it, and errors in it are named."""

import json

import pytest

from leo_tf.errors import FlagError
from leo_tf.training.workers import read_cluster

ADDRESSES = ["127.0.0.1:1", "host.example:2222", "[::1]:3"]


def read(cluster=None, job="worker", index=0, **more) -> tuple[int, bool]:
    cluster = {"worker": ADDRESSES} if cluster is None else cluster
    values = {"cluster": cluster, "task": {"type": job, "index": index}, **more}
    return read_cluster({"TF_CONFIG": json.dumps(values)})


def test_the_chief_is_the_one_named_so_or_else_the_first_worker():
    assert [read(index=i) for i in range(3)] == [(3, True), (3, False), (3, False)]
    named = {"chief": ADDRESSES[:1], "worker": ADDRESSES[1:]}
    assert read(named, "chief") == (3, True)
    assert [read(named, index=i) for i in range(2)] == [(3, False)] * 2
    assert read(environment="cloud") == (3, True), "what others write besides"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"cluster": []}, "`cluster` as a JSON object"),
        ({"cluster": {"worker": []}}, "a list of addresses for worker"),
        ({"cluster": {"worker": "a:1"}}, "a list of addresses for worker"),
        ({"cluster": {"worker": ["a"]}}, "addresses such as host:2222"),
        ({"cluster": {"worker": ["a:1", 2]}}, "addresses such as host:2222"),
        ({"cluster": {"chief": ["a:1", "b:1"], "worker": ["c:1"]}}, "one chief"),
        ({"cluster": {"worker": ["a:1"], "ps": ["b:1"]}}, "only chief and worker"),
        ({"job": "chief"}, "a `task` whose `type` is in `cluster`"),
        ({"job": ["worker"]}, "a `task` whose `type` is in `cluster`"),
        ({"index": 3}, "a `task` whose `index` is from 0 to 2"),
        ({"index": -1}, "a `task` whose `index` is from 0 to 2"),
        ({"index": "0"}, "a `task` whose `index` is from 0 to 2"),
        ({"index": True}, "a `task` whose `index` is from 0 to 2"),
        ({"task": 3}, "`task` as a JSON object"),
    ],
)
def test_an_error_in_tf_config_is_named(changes, expected):
    with pytest.raises(FlagError) as caught:
        read(**changes)
    assert caught.value.where == "TF_CONFIG"
    assert caught.value.expected.startswith(expected)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_tf_config_that_is_no_json_object_is_refused_in_one_line(text):
    with pytest.raises(FlagError, match=r"^TF_CONFIG: expected") as caught:
        read_cluster({"TF_CONFIG": text})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
