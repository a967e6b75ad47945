"""An error is one line that says no more than it should."""

import pickle

import pytest

from leo_tf.errors import InputError, LeoError, one_line

HOSTILE = "/tmp/\x1b[31mRED\x1b[0m\r\nerror: second\u2028line\u202e\udcff"


@pytest.mark.parametrize("part", range(4))
def test_no_part_of_an_error_breaks_its_line_or_moves_the_cursor(part):
    parts = ["here", "this", "that", "Do it."]
    parts[part] = HOSTILE
    message = str(InputError(*parts))
    assert message.isprintable() and message.isascii()
    assert r"\x1b[31mRED\x1b[0m\r\nerror: second\u2028line\u202e\udcff" in message


def test_a_path_in_any_script_is_shown_as_it_is():
    path = "/data/Läufe/試行 1/данные/a'b\"c$d\\e"
    assert str(InputError(path, "this", "that")).startswith(f"{path}: expected this")


def test_the_longest_path_of_linux_is_shown_whole_and_a_longer_text_by_its_ends():
    longest = "/" + "a" * 4095
    assert one_line(longest) == longest
    endless = InputError("/begin" + "x" * 300_000 + "/end", "this", "that")
    assert len(str(endless)) < 4300
    assert str(endless).startswith("/beginx") and "x/end: expected" in str(endless)
    assert "(300010 characters)" in str(endless)


def test_errors_come_back_from_worker_processes():
    # multiprocessing.Pool waits for ever for one that cannot be unpickled.
    for kind in (LeoError, *LeoError.__subclasses__()):
        error = kind("here", "this", "that", "Do it.")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind and str(again) == str(error)
        assert vars(again) == vars(error)
