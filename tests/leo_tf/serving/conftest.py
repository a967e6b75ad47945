"""A server of one exported model for each test file; and the page of another."""

import os
import subprocess
import sys

import chromium
import pytest
from running_server import Client, serving
from served_models import write_model
from teaching_page import PROGRAM, page_at, server


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


@pytest.fixture(scope="session")
def taught(tmp_path_factory):
    """A directory with an export of LEO, trained on the embedded set."""
    chromium.needed()
    if found := os.environ.get("TAUGHT_EXPORT"):
        return found
    directory = tmp_path_factory.mktemp("taught")
    train = [sys.executable, PROGRAM, "--quiet", f"--workdir={directory}/run"]
    subprocess.run([*train, "--num_steps=2000"], check=True)
    export = ["--mode=export", f"--export_dir={directory}/exported"]
    subprocess.run([*train, *export], check=True)
    return f"{directory}/exported"


@pytest.fixture(scope="module")
def address(taught):
    """The address of a server of it."""
    with server(taught) as address:
        yield address


@pytest.fixture
def page(address):
    """A browser at its page."""
    with page_at(address) as page:
        yield page
