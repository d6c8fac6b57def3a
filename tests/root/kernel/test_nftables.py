"""Transactions of nftables in a namespace made for the test, read back by the nft command."""

from __future__ import annotations

import errno
import ipaddress
import os
import shutil
import socket
import struct
import subprocess
import threading

import pytest

from orlop.kernel import namespaces
from orlop.kernel.netlink import NetlinkError
from orlop.kernel.nftables import (
    BaseChain,
    NftSocket,
    SetSpec,
    add_elements,
    delete_elements,
    delete_table,
    new_chain,
    new_rule,
    new_set,
    new_table,
    pack,
)
from orlop.kernel.nftrules import (
    ACCEPT,
    DROP,
    ESTABLISHED,
    FROM_DNAT,
    MASQUERADE,
    TO_LOCAL,
    dnat_by_map,
    in_set,
    interface,
    is_from,
    is_to,
    jump,
)
from orlop.kernel.rtnetlink import RouteSocket, change_link

pytestmark = pytest.mark.root
T = "orlop-test"
IFNAME, PROTOCOL, SERVICE, IPV4 = 41, 12, 13, 7  # nft's numbers of types


@pytest.fixture
def space():
    """A network namespace with loopback: (fd, nftables in it)."""
    made = []

    def make():
        namespaces.unshare(namespaces.CLONE_NEWNET)
        with RouteSocket() as routes:
            routes.send([change_link(1, is_up=True)])
        made.extend((os.open("/proc/thread-self/ns/net", os.O_RDONLY), NftSocket()))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    yield made
    made[1].close()
    os.close(made[0])


def inside(fd, work):
    """What `work` returns in a thread that lives in the namespace."""
    found = []

    def run():
        namespaces.setns(fd, namespaces.CLONE_NEWNET)
        found.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    return found[0]


def listing(fd):
    if shutil.which("nft") is None:
        pytest.skip("the nft command is not installed")
    return inside(
        fd,
        lambda: subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout,
    )


def test_every_expression_reads_back_as_what_it_says(space):
    fd, nft = space
    bridges = SetSpec("bridges", (16,), key_types=(IFNAME,))
    ports = SetSpec("ports", (1, 2), (4, 2), (PROTOCOL, SERVICE), (IPV4, SERVICE))
    network, six = ipaddress.ip_network("10.9.0.0/24"), ipaddress.ip_network("fd00:9::/64")

    nft.commit(
        [
            new_table(T),
            new_set(T, bridges, 1),
            new_set(T, ports, 2),
            add_elements(T, "bridges", [(b"br0".ljust(16, b"\0"), b"")]),
            add_elements(
                T,
                "ports",
                [(pack(b"\x06", struct.pack("!H", 8080)), pack(bytes([10, 9, 0, 2]), struct.pack("!H", 80)))],
            ),
            new_chain(T, "own"),
            new_chain(T, "forward", BaseChain("filter", "forward", -5, drops_by_default=True)),
            new_chain(T, "dnat", BaseChain("nat", "prerouting", -100)),
            new_chain(T, "snat", BaseChain("nat", "postrouting", 100)),
            new_rule(T, "own", [interface("in", "br0"), interface("out", "br0", is_not=True), DROP]),
            new_rule(T, "forward", [ESTABLISHED, ACCEPT]),
            new_rule(T, "forward", [in_set("out", "bridges"), FROM_DNAT, ACCEPT]),
            new_rule(T, "forward", [in_set("in", "bridges", is_not=True), jump("own")]),
            new_rule(T, "dnat", [TO_LOCAL, dnat_by_map(4, "ports", with_address=False)]),
            new_rule(T, "snat", [is_from(network), is_to(network, is_not=True), MASQUERADE]),
            new_rule(T, "snat", [is_from(six), MASQUERADE]),
        ]
    )

    text = " ".join(listing(fd).split())
    for line in (
        "table inet orlop-test",
        'type ifname elements = { "br0" }',
        "type inet_proto . inet_service : ipv4_addr . inet_service elements = { tcp . 8080 : 10.9.0.2 . 80 }",
        "type filter hook forward priority filter - 5; policy drop;",
        'iifname "br0" oifname != "br0" drop',
        "ct state established,related accept",
        "oifname @bridges ct status dnat accept",
        "iifname != @bridges jump own",
        "fib daddr type local meta nfproto ipv4 dnat ip to meta l4proto . th dport map @ports",
        "ip saddr 10.9.0.0/24 ip daddr != 10.9.0.0/24 masquerade",
        "ip6 saddr fd00:9::/64 masquerade",
    ):
        assert line in text, text


def test_packets_are_sent_where_the_map_says_and_elements_come_and_go(space):
    fd, nft = space
    ports = SetSpec("ports", (1, 2), (4, 2), (PROTOCOL, SERVICE), (IPV4, SERVICE))
    listener = inside(fd, lambda: socket.create_server(("127.0.0.1", 0)))
    key = pack(b"\x06", struct.pack("!H", 4711))
    target = pack(bytes([127, 0, 0, 1]), struct.pack("!H", listener.getsockname()[1]))
    nft.commit(
        [
            new_table(T),
            new_set(T, ports, 1),
            new_chain(T, "local", BaseChain("nat", "output", -100)),
            new_rule(T, "local", [TO_LOCAL, dnat_by_map(4, "ports", with_address=False)]),
        ]
    )

    def reach():
        try:
            with socket.create_connection(("127.0.0.1", 4711), timeout=5):
                return True
        except ConnectionRefusedError:
            return False

    before = inside(fd, reach)
    nft.commit([add_elements(T, "ports", [(key, target)])])
    there = inside(fd, reach)
    nft.commit([delete_elements(T, "ports", [key])])

    assert (before, there, inside(fd, reach)) == (False, True, False)
    listener.close()


def test_a_transaction_is_all_or_nothing(space):
    _, nft = space

    with pytest.raises(NetlinkError) as refused:
        nft.commit([new_table(T), new_chain(T, "one"), new_rule(T, "two", [DROP])])

    assert (refused.value.errno, refused.value.index) == (errno.ENOENT, 2)
    assert nft.tables() == []


def test_a_table_is_replaced_in_one_step(space):
    _, nft = space
    for _ in range(2):
        nft.commit([new_table(T), delete_table(T), new_table(T), new_chain(T, "one")])

    assert nft.tables() == [T]
    nft.commit([delete_table(T)])
    assert nft.tables() == []


def test_a_large_transaction(space):
    fd, nft = space
    ports = SetSpec("ports", (1, 2), (4, 2), (PROTOCOL, SERVICE), (IPV4, SERVICE))
    elements = [
        (pack(b"\x06", struct.pack("!H", port)), pack(bytes([10, 9, 0, 2]), struct.pack("!H", port)))
        for port in range(1000, 3000)
    ]
    nft.commit(
        [
            new_table(T),
            new_set(T, ports, 1),
            *(add_elements(T, "ports", elements[at : at + 500]) for at in range(0, 2000, 500)),
        ]
    )

    assert listing(fd).count("10.9.0.2") == 2000
