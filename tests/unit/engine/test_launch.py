import pytest

from orlop.engine.hostconfig import HostDefaults, apply_defaults
from orlop.engine.launch import Namespaces, Paths, build_spec
from orlop.engine.model import MountRecord, Record
from orlop.engine.requests import ContainerConfig, HostConfig, NetworkingConfig, Ulimit
from orlop.engine.views import MountPoint
from orlop.runtime.spec import RootSpec

PATHS = Paths("/run/c", "/data/log", "/data/hostname", "/data/hosts", "/data/resolv.conf")


def spec_of(host=None, config=None, mounts=(), defaults=None):
    defaults = defaults or HostDefaults()
    record = Record(
        id="c" * 64,
        name="web",
        created_ns=1,
        image_id="sha256:x",
        image_name="busybox",
        layers=(),
        platform="linux",
        path="sh",
        args=("-c", "true"),
        config=config or ContainerConfig(hostname="box"),
        host=apply_defaults(host or HostConfig(), defaults),
        networking=NetworkingConfig(),
        mounts=mounts,
    )
    return build_spec(record, RootSpec(("/l",), "/u", "/w"), PATHS, Namespaces(), defaults)


def test_the_default_masks_are_those_of_the_runtime():
    own = spec_of(host=HostConfig(masked_paths=("/proc/kcore",)))
    privileged = spec_of(host=HostConfig(privileged=True))

    assert spec_of().masked_paths is None
    assert own.masked_paths == ("/proc/kcore",)
    assert privileged.masked_paths == ()


def test_a_plain_container():
    spec = spec_of()

    assert spec.process.args == ("sh", "-c", "true")
    assert "HOSTNAME=box" in spec.process.env
    assert spec.hostname == "box"
    assert [mount.target for mount in spec.mounts] == ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"]
    assert spec.process.has_seccomp
    assert spec.sysctls["net.ipv4.ip_unprivileged_port_start"] == "0"
    assert spec.resources.pids_limit == 4096


@pytest.mark.parametrize(("asked", "limit"), [(None, 75), (7, 7), (-1, -1), (5000, 5000)])
def test_the_pids_limit_is_the_engines_unless_one_is_asked_for(asked, limit):
    spec = spec_of(HostConfig(pids_limit=asked), defaults=HostDefaults(pids_limit=75))

    assert spec.resources.pids_limit == limit


def test_mounts_of_the_user_come_parents_first_and_replace_our_files():
    def record(target):
        return MountRecord(MountPoint("bind", source="/s", destination=target), ("rbind",))

    spec = spec_of(mounts=(record("/a/b/c"), record("/etc/hosts"), record("/a")))

    assert [mount.target for mount in spec.mounts] == [
        "/etc/resolv.conf",
        "/etc/hostname",
        "/a",
        "/etc/hosts",
        "/a/b/c",
    ]


def test_a_read_only_root_stays_read_only():
    assert spec_of(HostConfig(readonly_rootfs=True)).root.is_read_only


def test_the_image_s_labels_and_annotations_give_no_privileges():
    config = ContainerConfig(hostname="x", labels={"privileged": "true", "devices": "/dev/sda"})

    spec = spec_of(HostConfig(annotations={"privileged": "true"}), config)

    assert not spec.is_privileged
    assert spec.devices == ()


def test_limits_of_the_user_replace_those_of_the_engine():
    defaults = HostDefaults(ulimits=(("nofile", 10, 20), ("core", 0, 0)))

    limits = spec_of(HostConfig(ulimits=(Ulimit("nofile", 7, 5),)), defaults=defaults).process.rlimits

    assert limits == {"nofile": (5, 7), "core": (0, 0)}
