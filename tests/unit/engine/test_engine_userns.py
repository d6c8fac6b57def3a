from dataclasses import replace
from types import SimpleNamespace

import pytest

from orlop.base.errors import InvalidInput
from orlop.engine.idmaps import RANGE, IdMap, IdPool, allocate
from orlop.engine.model import MountRecord
from orlop.engine.requests import HostConfig
from orlop.engine.userns import (
    UserMaps,
    UsernsSettings,
    asked_mode,
    check_joined,
    fit_sysctls,
    is_bind_mapped,
    joined,
    namespace_spec,
)
from orlop.engine.views import MountPoint
from orlop.runtime.spec import UserNamespaceSpec

POOL = IdPool(100_000, 8 * RANGE)
AUTO = UsernsSettings("auto", POOL)


class Catalog:
    """As much of the catalogue as choosing a map looks at."""

    def __init__(self, **maps):
        self.items = {
            name: SimpleNamespace(id=name, record=SimpleNamespace(id=name, name=name, id_map=one))
            for name, one in maps.items()
        }

    def __iter__(self):
        return iter(self.items.values())

    def find(self, name):
        return self.items.get(name)

    def get(self, name):
        return self.items[name]


def first_range():
    return allocate(POOL, ())


def choose(host, settings=AUTO, catalog=None):
    with UserMaps(settings).choosing("new", host, catalog or Catalog()) as chosen:
        return chosen


def test_the_host_is_the_default_and_can_be_asked_for():
    assert choose(HostConfig(), UsernsSettings()) is None
    assert choose(HostConfig(userns_mode="host")) is None
    assert choose(HostConfig(security_opt=("userns=host",), privileged=True)) is None


@pytest.mark.parametrize(
    "host",
    [
        HostConfig(userns_mode="auto"),
        HostConfig(userns_mode="private"),
        HostConfig(security_opt=("userns=auto",)),
    ],
)
def test_a_range_can_be_asked_for(host):
    assert choose(host, UsernsSettings(pool=POOL)) == first_range()


def test_containers_being_made_do_not_get_one_range():
    maps = UserMaps(AUTO)
    catalog = Catalog(old=first_range())

    with (
        maps.choosing("a", HostConfig(), catalog) as first,
        maps.choosing("b", HostConfig(), catalog) as second,
    ):
        starts = {one.uids[0].host_id for one in (first, second)}
    with maps.choosing("c", HostConfig(), catalog) as third:
        assert third == first

    assert starts == {100_000 + RANGE, 100_000 + 2 * RANGE}


def test_the_remap_is_everybodys():
    remap = IdMap(first_range().uids, first_range().gids, maps_binds=False)

    assert choose(HostConfig(), UsernsSettings("remap", POOL, remap), Catalog(old=remap)) is remap
    with pytest.raises(InvalidInput, match="invalid user namespace mode: remap"):
        choose(HostConfig(userns_mode="remap"))


@pytest.mark.parametrize(
    ("host", "text"),
    [
        (HostConfig(privileged=True), "privileged mode is incompatible with user namespaces"),
        (HostConfig(network_mode="host"), "cannot share the host's network namespace"),
        (HostConfig(pid_mode="host"), "cannot share the host PID namespace"),
        (HostConfig(binds=("/a:/b:ro,rshared",)), "shared mount propagation"),
        (HostConfig(userns_mode="auto", security_opt=("userns=host",)), "two user namespace modes"),
        (HostConfig(userns_mode="some"), "invalid user namespace mode: some"),
    ],
)
def test_conflicts_are_refused(host, text):
    with pytest.raises(InvalidInput, match=text):
        choose(host)


def test_sharing_a_namespace_shares_the_user_namespace_of_its_owner():
    one = first_range()
    catalog = Catalog(a=one, b=replace(one, owner="a"), plain=None)

    for mode in ("a", "b"):
        assert choose(HostConfig(network_mode=f"container:{mode}"), AUTO, catalog) == replace(one, owner="a")
        host = HostConfig(ipc_mode=f"container:{mode}", pid_mode="container:a")
        assert choose(host, UsernsSettings(), catalog).owner == "a"
        assert joined(host, replace(one, owner="a")) == f"container:{mode}"
    assert choose(HostConfig(userns_mode="container:b"), UsernsSettings(), catalog).owner == "a"
    assert choose(HostConfig(pid_mode="container:plain"), UsernsSettings(), catalog) is None


def test_joins_that_cannot_be_are_refused():
    catalog = Catalog(a=first_range(), b=allocate(POOL, [first_range()]), plain=None)

    for host, text in (
        (HostConfig(network_mode="container:a", ipc_mode="container:b"), "different user namespaces"),
        (HostConfig(network_mode="container:a", ipc_mode="container:plain"), "different user namespaces"),
        (HostConfig(network_mode="container:plain"), "shares the user namespace of the host"),
        (HostConfig(network_mode="container:a", userns_mode="host"), "the user namespace of the host"),
        (HostConfig(network_mode="container:a", privileged=True), "privileged mode"),
    ):
        with pytest.raises(InvalidInput, match=text):
            choose(host, AUTO, catalog)


def test_a_container_joins_at_its_start_only_the_one_that_it_was_made_for():
    one = first_range()
    mine = SimpleNamespace(id_map=replace(one, owner="a"))

    check_joined(mine, SimpleNamespace(id="a", id_map=one))
    check_joined(mine, SimpleNamespace(id="b", id_map=replace(one, owner="a")))
    check_joined(SimpleNamespace(id_map=None), SimpleNamespace(id="x", id_map=None))
    for me, other in (
        (mine, SimpleNamespace(id="c", id_map=one)),
        (mine, SimpleNamespace(id="a", id_map=None)),
    ):
        with pytest.raises(InvalidInput, match="another user namespace now"):
            check_joined(me, other)
    with pytest.raises(InvalidInput, match="another user namespace now"):
        check_joined(SimpleNamespace(id_map=None), SimpleNamespace(id="a", id_map=one))


def mount(kind, mode=""):
    return MountRecord(MountPoint(kind, destination="/x", mode=mode, rw=True))


def test_which_mounts_are_mapped():
    auto, remap = first_range(), replace(first_range(), maps_binds=False)

    assert not is_bind_mapped(mount("volume"), None)
    assert not is_bind_mapped(mount("tmpfs"), auto)
    assert is_bind_mapped(mount("volume"), remap)
    assert is_bind_mapped(mount("bind"), auto)
    assert not is_bind_mapped(mount("bind"), remap)
    assert not is_bind_mapped(mount("bind", "ro,noidmap"), auto)
    assert is_bind_mapped(mount("bind", "idmap"), remap)


def test_groups_that_may_ping_are_those_that_exist():
    name = "net.ipv4.ping_group_range"
    default = {name: "0 2147483647", "a": "b"}

    assert fit_sysctls(default, None, None) == default
    assert fit_sysctls(default, {}, first_range()) == {name: "0 65535", "a": "b"}
    assert fit_sysctls({name: "0 5"}, {name: "0 5"}, first_range()) == {name: "0 5"}


def test_the_runtime_is_told_map_and_path():
    one = first_range()

    assert namespace_spec(None, "") is None
    assert namespace_spec(one, "/proc/1/ns/user") == UserNamespaceSpec(one.uids, one.gids, "/proc/1/ns/user")
    assert asked_mode(HostConfig(userns_mode="private")) == "auto"
