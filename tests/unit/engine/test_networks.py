"""The two built-in networks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orlop.base.errors import InvalidInput
from orlop.engine.filters import Filters
from orlop.engine.networks import Networks, NoSuchNetwork
from orlop.engine.requests import HostConfig


def user(name, mode):
    return SimpleNamespace(id=name * 64, name=name, host=HostConfig(network_mode=mode))


@pytest.fixture
def networks():
    return Networks("engine", 0, lambda: [user("a", "host"), user("b", "none"), user("c", "bridge")])


def test_they_have_ids_of_their_own_that_stay(networks):
    again = Networks("engine", 5, list)
    other = Networks("other", 0, list)

    ids = {network.id for network in networks.list(Filters())}

    assert len(ids) == 2
    assert ids == {network.id for network in again.list(Filters())}
    assert ids.isdisjoint({network.id for network in other.list(Filters())})


def test_found_by_name_id_and_prefix_with_their_containers(networks):
    host = networks.get("host")

    assert networks.get(host.id) == networks.get(host.id[:5]) == host
    assert [endpoint.name for endpoint in host.containers.values()] == ["a"]


@pytest.mark.parametrize("name", ["", "bridge", "x" * 1000])
def test_unknown_ones_are_named(networks, name):
    with pytest.raises(NoSuchNetwork, match="not found"):
        networks.get(name)


@pytest.mark.parametrize(
    ("filters", "names"),
    [({"name": ["o"]}, ["host", "none"]), ({"name": ["ho"]}, ["host"]), ({"driver": ["null"]}, ["none"]), ({"type": ["custom"]}, []),
     ({"label": ["a"]}, []), ({"scope": ["local"]}, ["host", "none"]), ({"dangling": ["true"]}, [])],
)  # fmt: skip
def test_filters(networks, filters, names):
    assert [network.name for network in networks.list(Filters(filters))] == names


def test_unknown_filters_are_refused(networks):
    with pytest.raises(InvalidInput):
        networks.list(Filters({"nope": ["x"]}))
