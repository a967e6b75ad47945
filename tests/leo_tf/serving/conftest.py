"""A server of one exported model, for each test file of its own."""

import pytest
from running_server import Client, serving
from served_models import write_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A directory with version 4 of a small model."""
    directory = tmp_path_factory.mktemp("served")
    write_model(directory / "4")
    return directory


@pytest.fixture(scope="module")
def port(exported):
    """The port of a server of it."""
    with serving(exported) as (port, _):
        yield port


@pytest.fixture
def client(port):
    """A connection to that server."""
    client = Client(port)
    yield client
    client.connection.close()
