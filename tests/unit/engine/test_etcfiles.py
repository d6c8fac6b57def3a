import os

import pytest

from orlop.base.errors import InvalidInput
from orlop.engine import etcfiles


def test_hosts_name_the_loopback_and_what_was_added():
    text = etcfiles.hosts(("db:10.0.0.1", "six=[::2]", "seven:::3"), is_host_network=False)

    assert "127.0.0.1\tlocalhost\n" in text
    assert text.endswith("10.0.0.1\tdb\n::2\tsix\n::3\tseven\n")


@pytest.mark.parametrize("item", ["db", ":1.2.3.4", "a b:1.2.3.4", "db:1.2.3.4\nevil", "x:host-gateway"])
def test_wrong_hosts_are_refused(item):
    with pytest.raises(InvalidInput):
        etcfiles.hosts((item,), is_host_network=False)


def test_servers_that_were_asked_for_replace_those_of_the_host(monkeypatch):
    monkeypatch.setattr(etcfiles, "_read_host", lambda _: "nameserver 9.9.9.9\nsearch here\n")

    assert etcfiles.resolv_conf((), (), ()) == "nameserver 9.9.9.9\nsearch here\n"
    assert etcfiles.resolv_conf(("1.1.1.1",), (), ()) == "nameserver 1.1.1.1\nsearch here\n"
    assert etcfiles.resolv_conf((), (".",), ()) == "nameserver 9.9.9.9\n"
    with pytest.raises(InvalidInput):
        etcfiles.resolv_conf(("1.1.1.1\nnameserver 6.6.6.6",), (), ())


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    os.symlink(victim, tmp_path / "hosts")

    etcfiles.write(str(tmp_path / "hosts"), "new")

    assert victim.read_text() == "precious"
    assert (tmp_path / "hosts").read_text() == "new"
