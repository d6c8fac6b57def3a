from dataclasses import fields
from types import SimpleNamespace

import pytest

from orlop.api.app import build_routes
from orlop.api.roles import NotAllowed, check_child, role_routes
from orlop.engine.apisockets import as_child
from orlop.engine.requests import CreateBody, HostConfig
from orlop.engine.securityopts import confining_options
from orlop.wire import gojson

PLAIN = {  # what docker's client sends for `run busybox`
    "Image": "busybox",
    "HostConfig": {
        "Binds": None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": "", "Config": {}},
        "NetworkMode": "default",
        "PortBindings": {},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": False,
        "VolumeDriver": "",
        "VolumesFrom": None,
        "ConsoleSize": [50, 200],
        "CapAdd": None,
        "CapDrop": None,
        "CgroupnsMode": "",
        "Dns": [],
        "ExtraHosts": None,
        "IpcMode": "",
        "Links": None,
        "OomScoreAdj": 0,
        "PidMode": "",
        "Privileged": False,
        "PublishAllPorts": False,
        "ReadonlyRootfs": False,
        "SecurityOpt": None,
        "UTSMode": "",
        "UsernsMode": "",
        "ShmSize": 0,
        "Isolation": "",
        "BlkioWeightDevice": [],
        "Devices": [],
        "DeviceCgroupRules": None,
        "DeviceRequests": None,
        "MemorySwappiness": -1,
        "OomKillDisable": False,
        "PidsLimit": 0,
        "Ulimits": [],
        "MaskedPaths": None,
        "ReadonlyPaths": None,
    },
    "NetworkingConfig": {"EndpointsConfig": {"default": {}}},
}


def child(**host):
    body = PLAIN | {"HostConfig": PLAIN["HostConfig"] | host}
    return gojson.decode(CreateBody, body)


def test_a_plain_container_is_allowed():
    check_child(child())
    check_child(child(Memory=1 << 26, CapDrop=["ALL"], Tmpfs={"/t": ""}, ReadonlyRootfs=True, PidsLimit=9))
    check_child(child(Mounts=[{"Type": "tmpfs", "Target": "/t"}]))


@pytest.mark.parametrize(
    "host",
    [
        {"Privileged": True},
        {"Binds": ["/:/host"]},
        {"Binds": ["vol:/data"]},
        {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]},
        {"Mounts": [{"Type": "volume", "Source": "vol", "Target": "/host"}]},
        {"VolumesFrom": ["other"]},
        {"VolumeDriver": "x"},
        {"NetworkMode": "host"},
        {"NetworkMode": "container:other"},
        {"NetworkMode": "mynet"},
        {"PidMode": "host"},
        {"PidMode": "container:other"},
        {"IpcMode": "host"},
        {"IpcMode": "container:other"},
        {"IpcMode": "shareable"},
        {"UTSMode": "host"},
        {"UsernsMode": "host"},
        {"CgroupnsMode": "host"},
        {"CgroupParent": "/"},
        {"CapAdd": ["SYS_ADMIN"]},
        {"SecurityOpt": ["seccomp=unconfined"]},
        {"Devices": [{"PathOnHost": "/dev/sda"}]},
        {"DeviceCgroupRules": ["a *:* rwm"]},
        {"DeviceRequests": [{"Count": -1}]},
        {"MaskedPaths": []},
        {"ReadonlyPaths": []},
        {"Sysctls": {"kernel.x": "1"}},
        {"Runtime": "mine"},
        {"Annotations": {"run.oci.x": "1"}},
        {"OomScoreAdj": -1000},
        {"OomKillDisable": True},
        {"PidsLimit": -1},
        {"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 1}]},
        {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}},
        {"PublishAllPorts": True},
        {"RestartPolicy": {"Name": "always"}},
        {"LogConfig": {"Type": "syslog"}},
        {"Links": ["other:o"]},
        {"ShmSize": 1 << 40},
    ],
    ids=str,
)
def test_what_reaches_beyond_the_container_is_not(host):
    with pytest.raises(NotAllowed):
        check_child(child(**host))


@pytest.mark.parametrize(
    "more",
    [
        {"Orlop": {"ApiSocket": "own-children"}},
        {"Orlop": {"Parent": "other"}},
        {"Runtime": "mine"},  # as docker-py sends it
        {"NetworkingConfig": {"EndpointsConfig": {"mynet": {}}}},
    ],
    ids=str,
)
def test_nor_is_what_stands_beside_the_host_config(more):
    with pytest.raises(NotAllowed):
        check_child(gojson.decode(CreateBody, PLAIN | more))


def test_a_field_that_is_new_is_refused_until_somebody_thinks_about_it():
    """Whatever is set to something else than its default."""
    free = "auto_remove cap_drop console_size cpu dns extra_hosts init memory nano readonly_rootfs tmpfs container_id"
    for item in fields(HostConfig):
        if item.name.startswith(tuple(free.split())):
            continue
        host = object.__new__(HostConfig)
        for other in fields(HostConfig):
            object.__setattr__(host, other.name, getattr(HostConfig(), other.name))
        object.__setattr__(host, item.name, _Odd())
        with pytest.raises(NotAllowed):
            check_child(CreateBody(host_config=host))


class _Odd:
    """A value that nobody expects, of any type."""

    name = type = "odd"
    config = maximum_retry_count = None

    def __ge__(self, other):
        return False

    def __iter__(self):
        return iter([self])


def allowed(role):
    plain = {route.operation: route.handler for route in build_routes()}
    return {
        route.operation
        for route in role_routes(build_routes(), role, "p" * 64)
        if route.handler is plain[route.operation]
    }


def test_read_only_changes_nothing_and_gives_no_file_away():
    plain = {route.operation: route for route in build_routes()}
    names = allowed("read-only")

    assert all(plain[name].method in ("GET", "HEAD") for name in names - {"ContainerWait"})
    assert not names & {
        "ContainerArchive",
        "ContainerExport",
        "ImageGet",
        "ContainerAttachWebsocket",
        "SystemAuth",
    }


def test_a_builder_builds_and_looks_at_images():
    assert not {
        name for name in allowed("build") if name.startswith(("Container", "Exec", "Volume", "Network"))
    }


def test_a_role_that_nobody_knows_may_nothing():
    assert allowed("admin") == set()


def test_a_child_has_what_takes_something_from_its_parent_and_nothing_that_gives():
    own = HostConfig(
        security_opt=(
            "no-new-privileges",
            "hardened=true",
            "seccomp=unconfined",
            "apparmor=mine",
            "writable-cgroups",
            "userns=host",
            "systempaths=unconfined",
        ),
        cap_add=("SYS_ADMIN",),
        cap_drop=("CHOWN",),
        network_mode="none",
        runtime="crun",
    )
    parent = SimpleNamespace(host=own, id_map=object())

    host = as_child(HostConfig(cap_drop=("KILL",), network_mode="bridge", memory=9), parent)

    assert host == HostConfig(
        security_opt=("no-new-privileges", "hardened=true", "apparmor=mine"),
        cap_drop=("KILL", "CHOWN"),
        userns_mode="auto",
        network_mode="none",
        runtime="crun",
        memory=9,
    )
    assert as_child(HostConfig(), SimpleNamespace(host=HostConfig(), id_map=None)) == HostConfig()


def test_what_is_switched_off_is_not_handed_on():
    options = ["no-new-privileges=false", "hardened=0", "seccomp=unconfined", "seccomp={}", "label=disable"]
    assert confining_options(options) == ("seccomp={}",)
