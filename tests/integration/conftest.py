"""Fixtures that integration tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from broker_tools import TlsBroker

from broker.local import HOST, LocalBroker, free_port
from broker.render import Access, Configuration, access_list, configuration
from fleet.transport import create_authority, issue_broker, write_file, write_key_pair
from hushfleet.mqtt.topics import Topics


@pytest.fixture(scope="module")
def tls_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsBroker]:
    """A broker of this test module's own."""
    directory = tmp_path_factory.mktemp("broker")
    authority, topics = create_authority("test fleet"), Topics(bytes(range(16)))
    write_file(directory / "ca.pem", authority.certificate_pem, mode=0o644)
    write_key_pair(directory, "broker", issue_broker(authority, [HOST, "localhost"]))
    access = Access(topics.fleet, coordinator=0, candidates=(1, 2))
    settings = Configuration(
        port=free_port(),
        address=HOST,
        directory=directory,
        access_list=directory / "acl",
        authority=directory / "ca.pem",
        certificate=directory / "broker.pem",
        key=directory / "broker.key",
        revocation_list=None,
        system_user=directory.owner(),
        memory=2**30,
    )
    settings.access_list.write_text(access_list(access))
    with LocalBroker(directory, settings.port, configuration(settings)) as process:
        yield TlsBroker(process, authority, topics, access, settings, directory)

@pytest.fixture
def owner_broker(tmp_path: Path) -> Iterator[LocalBroker]:
    """A broker of a device's owner, open to everyone on this machine."""
    port = free_port()
    place = tmp_path / "owner"
    place.mkdir()
    with LocalBroker(place, port, f"listener {port} {HOST}\nallow_anonymous true\n") as process:
        yield process
