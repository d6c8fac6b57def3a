import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.registry.endpoints import (
    HUB_ORIGIN,
    RegistryBlocked,
    RegistryOptions,
    certificates_of,
    endpoints_of,
)
from orlop.registry.hostsfile import InvalidHostsFile, parse_hosts_file

FILE = """
server = "https://reg.example"
[host."https://mirror.lan:5000"]
  capabilities = ["pull"]
  ca = "ca.pem"
  client = [["a.cert", "a.key"], "both.pem"]
[host."http://plain.lan/some/path"]
  capabilities = ["pull", "resolve"]
  override_path = true
  [host."http://plain.lan/some/path".header]
    x-secret = ["geheim"]
"""


def write(tmp_path, domain, text):
    folder = tmp_path / domain
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts.toml").write_text(text)
    return RegistryOptions(config_dirs=(str(tmp_path),))


def endpoints(domain, options, *, for_push=False):
    return asyncio.run(endpoints_of(domain, options, for_push=for_push))


def test_servers_are_asked_in_the_order_of_the_file_and_the_registry_last(tmp_path):
    options = write(tmp_path, "reg.example", FILE)

    mirror, plain, own = endpoints("reg.example", options)

    assert mirror.files.authorities == (str(tmp_path / "reg.example/ca.pem"),)
    assert mirror.files.client_pairs[0] == tuple(
        str(tmp_path / f"reg.example/a.{e}") for e in ("cert", "key")
    )
    assert mirror.files.client_pairs[1][0] == mirror.files.client_pairs[1][1]
    assert mirror.capabilities == {"pull"}
    assert (
        str(mirror.url("/v2/a/tags/list?n=1")) == "https://mirror.lan:5000/v2/a/tags/list?n=1&ns=reg.example"
    )
    assert str(plain.url("/v2/a/tags/list")) == "http://plain.lan/some/path/a/tags/list?ns=reg.example"
    assert str(own.url("/v2/a/tags/list")) == "https://reg.example/v2/a/tags/list"
    assert [one.gets_credentials for one in (mirror, plain, own)] == [False, False, True]
    assert "geheim" not in repr(plain)


def test_pushes_go_only_where_the_file_lets_them(tmp_path):
    options = write(tmp_path, "reg.example", FILE)
    none = write(tmp_path, "closed.example", 'server = "https://x"\ncapabilities = ["pull"]\n')

    assert [str(one.origin) for one in endpoints("reg.example", options, for_push=True)] == [
        "https://reg.example"
    ]
    with pytest.raises(InvalidHostsFile, match=r"no server of registry closed\.example may be pushed to"):
        endpoints("closed.example", none, for_push=True)


def test_credentials_are_for_the_host_and_port_of_the_name_alone(tmp_path):
    text = 'server = "https://reg.example:8443"\n[host."https://reg.example"]\n[host."http://reg.example"]\n'
    options = write(tmp_path, "reg.example", text)

    assert [(str(one.origin), one.gets_credentials) for one in endpoints("reg.example", options)] == [
        ("https://reg.example", True),
        ("http://reg.example", True),
        ("https://reg.example:8443", False),
    ]


def test_without_a_server_the_registry_itself_comes_last(tmp_path):
    options = write(tmp_path, "docker.io", '[host."https://m.lan"]\n')
    write(tmp_path, "reg_5000_", '[host."https://m2.lan"]\n')
    write(tmp_path, "_default", '[host."https://any.lan/v2"]\n')

    assert [one.origin for one in endpoints("docker.io", options)][-1] == HUB_ORIGIN
    assert [str(one.origin) for one in endpoints("reg:5000", options)] == [
        "https://m2.lan",
        "https://reg:5000",
    ]
    first, second = endpoints("other.example", options)
    assert str(first.url("/v2/x")) == "https://any.lan/v2/x?ns=other.example"
    assert str(second.origin) == "https://other.example"


@pytest.mark.parametrize(
    "text",
    [
        "server = 5",
        "nonsense",
        'server = "ftp://x"',
        '[host."https://x?y=1"]',
        '[host."https://x"]\ncapabilities = ["fly"]',
        '[host."https://x"]\nca = 5',
        '[host."https://x"]\nclient = [["a", "b", "c"]]',
        '[host."https://x"]\nskip_verify = "yes"',
        '[host."https://x"]\nheader = {"a b" = "c"}',
        '[host."https://x"]\nheader = {a = "c\\r\\nd: e"}',
        '[host."https://x"]\nheader = {Host = "other"}',
        "[host]\nx = 5",
    ],
)
def test_malformed_files_are_refused_by_name(text):
    with pytest.raises(InvalidHostsFile, match=r"/d/hosts\.toml"):
        parse_hosts_file(text, "/d/hosts.toml")


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text):
    try:
        parse_hosts_file(text, "/d/hosts.toml")
    except InvalidHostsFile:
        return


def test_a_host_named_like_a_parent_directory_has_no_folder(tmp_path):
    (tmp_path / "certs").mkdir()
    (tmp_path / "ca.crt").write_text("x")
    options = RegistryOptions(config_dirs=(str(tmp_path / "certs"),))

    from orlop.aio.url import parse_url

    assert certificates_of(parse_url("https://../").origin, options).authorities == ()


def test_blocked_registries_are_never_asked():
    options = RegistryOptions(blocked=("docker.io", "*.bad.example", "one:5000"))

    for domain in ("docker.io", "a.bad.example", "a.bad.example:5000", "one:5000"):
        with pytest.raises(RegistryBlocked):
            endpoints(domain, options)
    assert len(endpoints("bad.example", options)) == 1
    assert len(endpoints("one:5001", options)) == 1


def test_only_the_last_server_is_tried_as_often_as_the_engine_may(tmp_path):
    options = write(tmp_path, "reg.example", FILE)

    assert [one.is_last for one in endpoints("reg.example", options)] == [False, False, True]
