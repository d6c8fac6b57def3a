from dataclasses import replace

import pytest

from orlop.engine.doctor import LIMITED, MISSING, OK, DoctorFacts, diagnose, read_facts
from orlop.kernel.cgroup import Mode
from orlop.kernel.filesystems import LayerStyle
from orlop.kernel.hostfeatures import FilesystemFacts
from orlop.kernel.probe import Abilities

ABLE = Abilities(
    kernel=(6, 18),
    overlay_layers=LayerStyle.FD,
    cgroup_mode=Mode.V2,
    cgroup_controllers=frozenset({"memory", "cpu", "cpuset", "pids", "io"}),
    clone_into_cgroup=True,
    openat2=True,
    pidfd=True,
    seccomp=True,
    apparmor=True,
    user_namespaces=True,
)
FACTS = DoctorFacts(
    release="6.18.0",
    abilities=ABLE,
    filesystem=FilesystemFacts("ext4", has_idmapped_mounts=True, has_project_quota=True, has_verity=True),
    layer_mounts="file",
    has_bpf_devices=True,
    has_apparmor=True,
    selinux="",
    landlock_abi=7,
    has_ipv6=True,
    has_nftables=True,
)


def finding(facts, name):
    (found,) = [item for item in diagnose(facts).findings if item.name == name]
    return found


def test_a_host_with_everything_lacks_selinux_only():
    found = diagnose(FACTS)

    assert found.can_run
    assert [item.name for item in found.findings if item.status != OK] == ["SELinux"]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"openat2": False}, "openat2"),
        ({"pidfd": False}, "pidfd"),
        ({"overlay_layers": None}, "overlay"),
        ({"cgroup_mode": Mode.NONE}, "cgroups"),
    ],
)
def test_without_what_is_required_nothing_runs(change, name):
    facts = replace(FACTS, abilities=replace(ABLE, **change))

    assert not diagnose(facts).can_run
    assert (finding(facts, name).status, finding(facts, name).is_required) == (MISSING, True)


@pytest.mark.parametrize(
    ("change", "name", "status"),
    [
        ({"has_apparmor": False}, "AppArmor", MISSING),
        ({"landlock_abi": 0}, "Landlock", MISSING),
        ({"has_bpf_devices": False}, "device filter", MISSING),
        ({"layer_mounts": "loop"}, "layer mounts", LIMITED),
        ({"layer_mounts": "unpacked"}, "layer mounts", LIMITED),
        ({"has_ipv6": False}, "IPv6", LIMITED),
        ({"abilities": replace(ABLE, seccomp=False)}, "seccomp", MISSING),
        ({"abilities": replace(ABLE, cgroup_controllers=frozenset())}, "cgroup memory", MISSING),
        ({"filesystem": replace(FACTS.filesystem, has_verity=False)}, "fs-verity", LIMITED),
    ],
)
def test_what_is_not_there_has_a_consequence_and_a_hint(change, name, status):
    facts = replace(FACTS, **change)
    found = finding(facts, name)

    assert diagnose(facts).can_run
    assert found.status == status
    assert found.consequence
    assert found.hint


def test_version_1_needs_no_bpf():
    v1 = replace(ABLE, cgroup_mode=Mode.V1, cgroup_controllers=frozenset({"devices", "memory", "blkio"}))

    assert finding(replace(FACTS, abilities=v1, has_bpf_devices=False), "device filter").status == OK


def test_this_host_can_be_looked_at(tmp_path):
    found = diagnose(read_facts(str(tmp_path), "6.1", "file"))

    assert len({item.name for item in found.findings}) == len(found.findings) > 12
