"""Where the engine is looked for, and in which order."""

from __future__ import annotations

import hashlib
import json

import pytest

from orlop.base.errors import InvalidInput
from orlop.client.endpoint import DEFAULT_SOCKET, resolve_endpoint


@pytest.fixture
def config(tmp_path):
    """A docker config directory with a context `far` that is the current one."""
    meta = tmp_path / "contexts" / "meta" / hashlib.sha256(b"far").hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(
        json.dumps({"Name": "far", "Endpoints": {"docker": {"Host": "tcp://far:1"}}})
    )
    (tmp_path / "config.json").write_text('{"currentContext": "far"}')
    return {"DOCKER_CONFIG": str(tmp_path)}


def test_without_anything_it_is_the_default_socket(tmp_path):
    endpoint = resolve_endpoint({"HOME": str(tmp_path)})

    assert (endpoint.path, endpoint.is_default) == (DEFAULT_SOCKET, True)


def test_flags_come_before_the_environment_and_that_before_contexts(config):
    hosts = {"ORLOP_HOST": "unix:///o", "DOCKER_HOST": "tcp://d:2"}

    assert resolve_endpoint(config).host == "far"
    assert resolve_endpoint(config | {"DOCKER_HOST": "tcp://d:2"}).host == "d"
    assert resolve_endpoint(config | hosts).path == "/o"
    assert resolve_endpoint(config | hosts, context="far").host == "far"
    assert resolve_endpoint(config | hosts, context="default").is_default
    assert resolve_endpoint(config | hosts, host="unix:///f").path == "/f"


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [("tcp://h:1", "h", 1), ("tcp://h", "h", 2375), ("tcp://[::1]:5", "::1", 5), ("h:7", "h", 7), ("tcp://:9", "localhost", 9), ("http://h:1/", "h", 1)],
)  # fmt: skip
def test_addresses(url, host, port):
    endpoint = resolve_endpoint({}, host=url)

    assert (endpoint.host, endpoint.port) == (host, port)


def test_the_host_header_of_an_ipv6_address_has_brackets():
    assert resolve_endpoint({}, host="tcp://[::1]:5").authority == "[::1]:5"


@pytest.mark.parametrize("url", ["unix://", "tcp://h:port", "npipe:////./pipe/x"])
def test_what_cannot_be_reached_is_refused(url):
    with pytest.raises(InvalidInput, match="invalid host"):
        resolve_endpoint({}, host=url)


def test_an_unknown_context_is_named(config):
    with pytest.raises(InvalidInput, match='context "near"'):
        resolve_endpoint(config, context="near")


@pytest.mark.parametrize(
    ("url", "verify", "port", "is_tls"),
    [
        ("tcp://h", "1", 2376, True),
        ("tcp://h:5", "1", 5, True),
        ("tcp://h", "", 2375, False),
        ("http://h", "1", 2375, False),
        ("https://h", "", 2376, True),
    ],
)
def test_tls_is_asked_for_by_the_environment_or_by_https(url, verify, port, is_tls):
    environ = {"DOCKER_HOST": url, "DOCKER_TLS_VERIFY": verify, "DOCKER_CERT_PATH": "/certs"}

    endpoint = resolve_endpoint(environ)

    assert (endpoint.port, endpoint.is_tls) == (port, is_tls)
    assert endpoint.certificates == ("/certs" if is_tls else "")


def test_certificates_are_in_the_docker_configuration_unless_said():
    environ = {"DOCKER_HOST": "tcp://h", "DOCKER_TLS_VERIFY": "1", "DOCKER_CONFIG": "/cfg"}

    assert resolve_endpoint(environ).certificates == "/cfg"


def test_a_context_brings_its_own_certificates(config, tmp_path):
    files = tmp_path / "contexts" / "tls" / hashlib.sha256(b"far").hexdigest() / "docker"
    files.mkdir(parents=True)

    endpoint = resolve_endpoint(config)

    assert (endpoint.is_tls, endpoint.certificates) == (True, str(files))


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("ssh://me@host.example:2222", "me@host.example", 2222),
        ("ssh://host", "host", 0),
        ("ssh://[fd00::1]:22", "fd00::1", 22),
    ],
)
def test_engines_behind_ssh(url, host, port):
    found = resolve_endpoint({}, host=url)

    assert (found.ssh, found.host, found.port) == (True, host, port)


@pytest.mark.parametrize(
    "url", ["ssh://", "ssh://a b", "ssh://me:pw@host", "ssh://host/path", "ssh://-oProxyCommand=x"]
)
def test_ssh_hosts_that_are_none(url):
    with pytest.raises(InvalidInput):
        resolve_endpoint({}, host=url)
