"""config.json and process.json from our specs."""

import json
from dataclasses import replace

import pytest

from orlop.bundle.config import parse_config, parse_process
from orlop.bundle.writing import Facts, config_document, process_document
from orlop.bundle.writing_mounts import Mounted, propagation_of
from orlop.kernel.capabilities import bit, mask_of
from orlop.runtime import defaults
from orlop.runtime.identity import Identity
from orlop.runtime.spec import (
    ContainerSpec,
    DeviceSpec,
    LogSpec,
    MountSpec,
    ProcessSpec,
    ResourceSpec,
    RootSpec,
)

ROOT = Facts(who=Identity(0, 0, (0,), "/root"), cgroup_path="orlop/abc")
PROCESS = ProcessSpec(
    ("sh", "-c", "true"), env=("A=1", "A=2", "bad", "=x"), capabilities=("CHOWN", "SYS_CHROOT")
)
SPEC = ContainerSpec("abc", "/run/x", RootSpec(("/l",), "/u", "/w"), PROCESS, LogSpec("none", ""))


def mounts_of(spec, facts=ROOT):
    return {item["destination"]: item for item in config_document(spec, facts)["mounts"]}


def test_a_document_is_what_a_strict_reader_takes():
    document = config_document(SPEC, ROOT)
    config = parse_config(json.dumps(document).encode())
    assert config.process.args == PROCESS.args
    assert config.root.path == "rootfs"
    assert document["linux"]["cgroupsPath"] == "/orlop/abc"
    assert document["linux"]["readonlyPaths"] == list(defaults.READ_ONLY_PATHS)
    assert set(defaults.MASKED_PATHS) < set(document["linux"]["maskedPaths"])
    assert "hooks" not in document
    parse_process(json.dumps(process_document(PROCESS, ROOT, is_privileged=False)).encode())


def test_a_process_has_what_was_resolved():
    process = process_document(PROCESS, ROOT, is_privileged=False)
    assert process["env"] == ["A=2", "HOME=/root"]
    assert process["user"] == {"uid": 0, "gid": 0, "additionalGids": [0]}
    names = ["CAP_CHOWN", "CAP_SYS_CHROOT"]
    assert process["capabilities"] == {"bounding": names, "effective": names, "permitted": names}


def test_others_than_root_have_no_capability_in_force():
    facts = replace(ROOT, who=Identity(5, 6, (6, 7), "/home/x"))
    process = process_document(replace(PROCESS, env=("HOME=/mine",)), facts, is_privileged=False)
    assert process["user"] == {"uid": 5, "gid": 6, "additionalGids": [6, 7]}
    assert process["capabilities"]["effective"] == process["capabilities"]["permitted"] == []
    assert process["capabilities"]["bounding"]
    assert process["env"] == ["HOME=/mine"]


def test_what_the_host_lacks_is_not_given():
    facts = replace(ROOT, available=mask_of(("CHOWN",)))
    assert process_document(PROCESS, facts, is_privileged=False)["capabilities"]["bounding"] == ["CAP_CHOWN"]
    everything = process_document(replace(PROCESS, capabilities=()), facts, is_privileged=True)
    assert everything["capabilities"]["bounding"] == ["CAP_CHOWN"]
    assert bit("CHOWN") == 0


@pytest.mark.parametrize(("value", "written"), [(-1, 2**64 - 1), (0, 0), (77, 77)])
def test_limits_of_a_process(value, written):
    process = process_document(replace(PROCESS, rlimits={"nofile": (1, value)}), ROOT, is_privileged=False)
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": written}]


def test_namespaces():
    spec = replace(
        SPEC, network="/proc/7/ns/net", ipc="host", pid="host", uts="host", cgroupns="private", hostname="h"
    )
    document = config_document(spec, ROOT)
    found = {item["type"]: item.get("path", "") for item in document["linux"]["namespaces"]}
    assert found == {"mount": "", "network": "/proc/7/ns/net", "cgroup": ""}
    assert "hostname" not in document  # it is the host's
    own = config_document(replace(SPEC, hostname="h", domainname="d"), ROOT)
    assert {item["type"] for item in own["linux"]["namespaces"]} == {
        "mount",
        "network",
        "ipc",
        "uts",
        "pid",
        "cgroup",
    }
    assert own["hostname"] == "h"
    assert own["linux"]["sysctl"] == {"kernel.domainname": "d"}


def test_an_init_comes_before_the_program():
    document = config_document(replace(SPEC, has_init=True), ROOT)
    assert document["process"]["args"] == ["/sbin/docker-init", "--", "sh", "-c", "true"]


def test_binds_have_our_places_and_their_options():
    binds = (
        MountSpec("bind", "/a/b", "/secret/path", ("ro", "rbind", "z", "rshared")),
        MountSpec("bind", "/a", "/other", ("bind", "nosuid")),
        MountSpec("tmpfs", "/t", "", ("size=1m", "exec")),
    )
    facts = replace(
        ROOT, mounts=[Mounted(binds[0], "/s/0"), Mounted(binds[1], "/s/1"), Mounted(binds[2], mode=0o1777)]
    )
    document = config_document(replace(SPEC, mounts=binds), facts)
    assert "/secret/path" not in str(document)
    asked = document["mounts"][-3:]
    assert [item["destination"] for item in asked] == ["/a", "/t", "/a/b"]
    assert asked[0] == {
        "destination": "/a",
        "type": "bind",
        "source": "/s/1",
        "options": ["bind", "nosuid", "rprivate"],
    }
    assert asked[1]["options"] == ["nosuid", "nodev", "exec", "size=1m", "mode=1777"]
    assert asked[2]["options"] == ["rbind", "ro", "rshared"]
    assert propagation_of(binds) == "shared"
    assert propagation_of(binds[1:]) == ""


def test_what_is_asked_for_covers_what_everybody_has():
    shm = MountSpec("tmpfs", "/dev/shm", "", ())
    facts = replace(ROOT, mounts=[Mounted(shm)])
    assert [item["destination"] for item in config_document(SPEC, facts)["mounts"]].count("/dev/shm") == 1
    whole = replace(ROOT, mounts=[Mounted(MountSpec("bind", "/dev", "/dev", ("rbind",)), "/s/0")])
    assert {"/dev/pts", "/dev/mqueue"}.isdisjoint(mounts_of(SPEC, whole))
    assert "/dev/shm" not in mounts_of(replace(SPEC, ipc="none"))
    assert "ro" in mounts_of(SPEC)["/sys/fs/cgroup"]["options"]
    assert "rw" in mounts_of(replace(SPEC, has_writable_cgroup=True))["/sys/fs/cgroup"]["options"]


def test_devices_and_their_rules():
    disk = DeviceSpec("/dev/sda", "b", 8, 0, 0o660, 0, 6, "r")
    linux = config_document(replace(SPEC, devices=(disk,), device_rules=("c 10:* rw",)), ROOT)["linux"]
    assert [item["path"] for item in linux["devices"]] == ["/dev/sda"]
    rules = linux["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"} in rules
    assert {"allow": True, "type": "c", "major": 10, "access": "rw"} in rules


def test_a_privileged_container_has_the_hosts_devices_and_nothing_hidden():
    spec = replace(SPEC, is_privileged=True, masked_paths=(), read_only_paths=())
    facts = replace(
        ROOT, host_devices=[DeviceSpec("/dev/kmsg", "c", 1, 11), DeviceSpec("/dev/null", "c", 1, 3)]
    )
    linux = config_document(spec, facts)["linux"]
    assert [item["path"] for item in linux["devices"]] == ["/dev/kmsg"]
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert linux["maskedPaths"] == linux["readonlyPaths"] == []


def test_limits_that_the_kernel_lacks_are_left_out():
    resources = ResourceSpec(memory_limit_bytes=1 << 30, cpu_shares=5, pids_limit=9, nano_cpus=500_000_000)
    spec = replace(SPEC, resources=resources)
    written = config_document(spec, ROOT)["linux"]["resources"]
    assert written["memory"] == {"limit": 1 << 30, "swap": 2 << 30}
    assert written["cpu"] == {"shares": 5, "quota": 50000, "period": 100000}
    assert written["pids"] == {"limit": 9}
    lacking = replace(ROOT, missing_limits=frozenset({"swap limit", "pids limit"}))
    written = config_document(spec, lacking)["linux"]["resources"]
    assert written["memory"] == {"limit": 1 << 30}
    assert "pids" not in written


def test_seccomp_is_there_unless_it_is_not_wanted():
    assert config_document(SPEC, ROOT)["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    spec = replace(SPEC, process=replace(PROCESS, has_seccomp=False))
    assert "seccomp" not in config_document(spec, ROOT)["linux"]
