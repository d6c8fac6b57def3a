"""Our seccomp policy as runtimes read it."""

import errno

import pytest

from orlop.base.errors import InvalidInput
from orlop.bundle.writing_seccomp import seccomp_document
from orlop.runtime.seccomp_table import ALWAYS

NONE = frozenset()


def document(profile=None, capabilities=NONE, machine="x86_64", **more):
    return seccomp_document(profile, capabilities, machine, "6.1.0", **more)


def entries(found, name):
    return [item for item in found["syscalls"] if name in item["names"]]


def test_the_default_policy():
    found = document()
    assert (found["defaultAction"], found["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", errno.EPERM)
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert (
        set(next(item for item in found["syscalls"] if item["action"] == "SCMP_ACT_ALLOW")["names"]) >= ALWAYS
    )
    assert entries(found, "clone3")[0]["errnoRet"] == errno.ENOSYS
    assert not entries(found, "mount")
    assert entries(document(capabilities=frozenset({"SYS_ADMIN"})), "mount")
    (clone,) = entries(found, "clone")
    assert clone["args"] == [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]


def test_high_bits_of_an_address_family_do_not_slip_by():
    def is_allowed(value):
        return any(
            value & one["args"][0]["value"] == one["args"][0]["valueTwo"]
            for one in entries(document(), "socket")
        )

    allowed = {family for family in range(64) if is_allowed(family)}
    assert allowed == set(range(64)) - {38, 40}
    assert not is_allowed(1 << 32 | 38)
    assert not is_allowed(1 << 32 | 40)


def test_the_hardened_policy_is_for_one_architecture():
    found = document(is_hardened=True)
    assert found["architectures"] == ["SCMP_ARCH_X86_64"]
    assert not entries(found, "ptrace")


def test_a_profile_of_dockers_form():
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {
                "names": ["kill"],
                "action": "SCMP_ACT_KILL_PROCESS",
                "args": [{"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}],
            },
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["write"], "action": "SCMP_ACT_TRACE", "errnoRet": 5},
        ],
    }
    found = document(profile)
    assert found["defaultAction"] == "SCMP_ACT_ALLOW"
    assert found["architectures"] == ["SCMP_ARCH_X86_64"]
    assert entries(found, "mkdir") == [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]
    assert entries(found, "write") == [{"names": ["write"], "action": "SCMP_ACT_TRACE", "errnoRet": 5}]
    assert not entries(found, "read")
    (kill,) = entries(found, "kill")
    assert kill["args"] == [{"index": 1, "value": 0xFFFFFFFF, "valueTwo": 9, "op": "SCMP_CMP_MASKED_EQ"}]


def test_an_empty_profile_confines_nothing():
    assert document({}) is None


def test_an_unknown_machine_is_refused():
    with pytest.raises(InvalidInput, match="not supported on vax"):
        document(machine="vax")
