"""Fixtures: a server of one exported model for each test file."""

import pytest
from running_server import Client, serving
from served_models import write_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Returns a directory with version 4 of a small model."""
    directory = tmp_path_factory.mktemp("served")
    write_model(directory / "4")
    return directory


@pytest.fixture(scope="module")
def port(exported):
    """Starts a server of it and yields the port."""
    with serving(exported) as (port, _):
        yield port


@pytest.fixture
def client(port):
    """Yields a connection to that server."""
    client = Client(port)
    yield client
    client.connection.close()
