"""The name server of a container: names of its networks, and a server of the host's for the rest."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import threading

import pytest
from test_runtime_endpoints import IDS, endpoint, networked  # noqa: F401 - a fixture

from orlop.kernel.namespaces import CLONE_NEWNET, setns
from orlop.runtime.spec import NameServerSpec, UserNamespaceSpec
from orlop.wire import dns

pytestmark = pytest.mark.root


def write_zone(path, names):
    pointers = {addresses[0]: f"{name}.front" for name, addresses in names.items()}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"names": names, "pointers": pointers}))
    os.rename(fresh, path)


@pytest.fixture
def zone(tmp_path):
    path = tmp_path / "zone.json"
    write_zone(path, {"web": ["10.9.0.7", "fd00:9::7"], "db": ["10.9.0.8", "10.9.0.9"]})
    return path


class Upstream:
    """A name server of the host, in the namespace of whoever makes it: knows example.org, over UDP and TCP."""

    def __init__(self):
        self.asked = []
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.bind(("127.0.0.1", 53))
        self._listener = socket.create_server(("127.0.0.1", 53))
        for work in (self._serve_datagrams, self._serve_streams):
            threading.Thread(target=work, daemon=True).start()

    def _answer(self, data):
        query = dns.parse_query(data)
        self.asked.append(query.name)
        if query.name == "silent.org":
            return None
        known = [socket.inet_aton("198.51.100.9")] if query.name == "example.org" else []
        if not known:
            return dns.failure(query, dns.NO_SUCH_NAME)
        import ipaddress

        return dns.answer(query, [ipaddress.ip_address(packed) for packed in known], 60)

    def _serve_datagrams(self):
        while True:
            data, sender = self._datagrams.recvfrom(4096)
            if (message := self._answer(data)) is not None:
                self._datagrams.sendto(b"\xff\xff" + message[2:], sender)  # a forgery comes first
                self._datagrams.sendto(message, sender)

    def _serve_streams(self):
        while True:
            peer, _ = self._listener.accept()
            data = peer.recv(4096)
            message = self._answer(data[2:])
            peer.sendall(struct.pack("!H", len(message)) + message)
            peer.close()


def test_names_addresses_and_the_rest(networked, zone):  # noqa: F811
    async def scenario(h):
        upstream = Upstream()
        spec = NameServerSpec((str(zone),), ("127.0.0.1",))
        script = (
            "nslookup web 127.0.0.11; nslookup -type=aaaa WEB 127.0.0.11; nslookup 10.9.0.7 127.0.0.11; "
            "nslookup example.org 127.0.0.11; nslookup nope.org 127.0.0.11; echo end"
        )
        output = await h.shell(script, endpoints=(endpoint(),), name_server=spec)
        return output.stdout.decode(), upstream.asked

    text, asked = networked(scenario)
    assert "Address: 10.9.0.7" in text
    assert "Address: fd00:9::7" in text
    assert "name = web.front" in text
    assert "Address: 198.51.100.9" in text
    assert "can't find nope.org: NXDOMAIN" in text
    assert text.endswith("end\n")
    assert not {"web", "7.0.9.10.in-addr.arpa"} & set(asked)


def test_a_user_namespace_has_its_names_too(networked, zone):  # noqa: F811
    """Nobody made its network namespace ahead: the loopback is down when the name server comes."""
    spec, own = NameServerSpec((str(zone),)), UserNamespaceSpec(IDS, IDS)

    output = networked(
        lambda h: h.shell(
            "nslookup web 127.0.0.11", endpoints=(endpoint(),), name_server=spec, user_namespace=own
        )
    )

    assert b"Address: 10.9.0.7" in output.stdout


def test_names_come_and_go_and_several_addresses_take_turns(networked, zone):  # noqa: F811
    async def scenario(h):
        spec = NameServerSpec((str(zone),))
        task, stream = await h.start("sleep", "100", endpoints=(endpoint(),), name_server=spec)

        async def look(name):
            return (await h.exec(task, "nslookup", "-type=a", name, "127.0.0.11")).stdout.decode()

        firsts = {(await look("db")).split("Address: ")[1].split()[0] for _ in range(6)}
        write_zone(zone, {"other": ["10.9.0.9"]})
        later = [await look("other"), await look("web")]
        os.unlink(zone)  # no engine: the last names hold
        held = await look("other")
        await task.serve_names(NameServerSpec(()))
        none = await look("other")
        await task.signal(9)
        await task.wait()
        stream.close()
        return firsts, later, held, none

    firsts, (other, web), held, none = networked(scenario)
    assert firsts == {"10.9.0.8", "10.9.0.9"}
    assert "10.9.0.9" in other
    assert "10.9.0.9" in held
    assert "10.9.0.7" not in web  # without a server to ask: an error
    assert "10.9.0.9" not in none


def inside(task, work):
    """What a function says in the network namespace of a container."""
    found = []

    def enter():
        with open(f"/proc/{task.pid}/ns/net") as namespace:
            setns(namespace.fileno(), CLONE_NEWNET)
        found.append(work())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return found[0]


def listen_at_53():
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("0.0.0.0", 53))
    return datagrams, socket.create_server(("0.0.0.0", 53))


def throw_garbage():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(400):
            sock.sendto(os.urandom(40), ("127.0.0.11", 53))


def test_a_program_may_have_port_53_for_itself(networked, zone):  # noqa: F811
    async def scenario(h):
        spec = NameServerSpec((str(zone),))
        task, stream = await h.start("sleep", "100", endpoints=(endpoint(),), name_server=spec)
        own = inside(task, listen_at_53)
        output = await h.exec(task, "nslookup", "web", "127.0.0.11")
        for sock in own:
            sock.close()
        await task.signal(9)
        await task.wait()
        stream.close()
        return output.stdout

    assert b"Address: 10.9.0.7" in networked(scenario)


def test_a_flood_of_garbage_and_of_questions_that_nobody_answers(networked, zone):  # noqa: F811
    async def scenario(h):
        Upstream()
        spec = NameServerSpec((str(zone),), ("127.0.0.1",))
        task, stream = await h.start("sleep", "100", endpoints=(endpoint(),), name_server=spec)
        inside(task, throw_garbage)
        script = "for i in 1 2 3 4 5 6; do nslookup silent.org 127.0.0.11 & done; nslookup web 127.0.0.11"
        output = await h.exec(task, "sh", "-c", script)
        running = (await h.exec(task, "echo", "alive")).stdout
        await task.signal(9)
        record = await asyncio.wait_for(task.wait(), 10)
        stream.close()
        return output.stdout, running, record.exit_code

    text, running, code = networked(scenario)
    assert b"Address: 10.9.0.7" in text
    assert (running, code) == (b"alive\n", 137)
