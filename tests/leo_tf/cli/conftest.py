import pytest

from leo_tf.cli.flags import parse
from leo_tf.errors import FlagError


@pytest.fixture
def refusal():
    """Returns a function that parses arguments and returns the one-line error."""

    def refused(*arguments) -> FlagError:
        with pytest.raises(FlagError) as caught:
            parse(["run_leo.py", *arguments])
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 2
        return caught.value

    return refused
