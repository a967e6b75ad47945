import pytest

from configs.errors import FlagError
from configs.flags import parse


@pytest.fixture
def refusal():
    """Parses arguments that must be refused, in one line, and gives the error."""

    def refused(*arguments) -> FlagError:
        with pytest.raises(FlagError) as caught:
            parse(["run_leo.py", *arguments])
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 2
        return caught.value

    return refused
