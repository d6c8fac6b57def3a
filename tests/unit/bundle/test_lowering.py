"""What create will do, decided from a document alone: refusals, namespaces, mounts, devices, limits."""

import json

import pytest

from orlop.bundle.command.ending import signal_number
from orlop.bundle.command.flags import Flag, parse_flags
from orlop.bundle.config import parse_config
from orlop.bundle.config_linux import CgroupDeviceRule, parse_resources
from orlop.bundle.knowledge import features_document, starting_config
from orlop.bundle.lowering import lower
from orlop.bundle.processes import plan_extras, plan_process
from orlop.bundle.reading import Reader
from orlop.bundle.refusal import Refused, Unsupported
from orlop.bundle.resources import device_rules, resource_writes
from orlop.kernel import mount
from orlop.kernel.devicefilter import ALLOW_ALL, DeviceRule
from orlop.kernel.namespaces import CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUSER


def document(**linux):
    found = starting_config()
    found["linux"] |= linux
    return found


def lowered(found):
    return lower(parse_config(json.dumps(found).encode()), "c1", "/bundle")


def namespaces(*kinds, **paths):
    return [{"type": kind} for kind in kinds] + [{"type": kind, "path": path} for kind, path in paths.items()]


def test_namespaces_are_made_or_joined_and_the_user_namespace_is_joined_last():
    plan = lowered(
        document(namespaces=namespaces("mount", "pid", "uts", user="/proc/1/ns/user", network="/run/netns/x"))
    )

    assert plan.new_namespaces & CLONE_NEWPID
    assert plan.joins == (("/run/netns/x", CLONE_NEWNET), ("/proc/1/ns/user", CLONE_NEWUSER))
    assert plan.has_user_namespace


def test_the_root_is_below_the_bundle_unless_absolute():
    assert lowered(document()).rootfs == "/bundle/rootfs"
    assert lowered(document() | {"root": {"path": "/srv/root"}}).rootfs == "/srv/root"


@pytest.mark.parametrize(
    ("linux", "text"),
    [
        ({"namespaces": namespaces("pid")}, "mount namespace"),
        ({"namespaces": namespaces("pid", mount="/proc/1/ns/mnt")}, "mount namespace"),
        ({"namespaces": namespaces("mount", "time")}, "time namespaces"),
        ({"uidMappings": [{"hostID": 1, "size": 1}]}, "user namespace"),
        ({"namespaces": namespaces("mount", "user")}, "uidMappings"),
        ({"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}}, "listenerPath"),
        ({"intelRdt": {"closID": "x"}}, "intelRdt"),
        ({"personality": {"domain": "BSD"}}, "BSD"),
        ({"sysctl": {"kernel.core_pattern": "|/x"}}, "kernel.core_pattern"),
        (
            {"namespaces": namespaces("mount", "uts"), "sysctl": {"net.ipv4.ip_forward": "1"}},
            "net.ipv4.ip_forward",
        ),
        ({"cgroupsPath": "system.slice:x:y"}, "systemd"),
    ],
)
def test_what_would_weaken_or_is_missing_is_refused(linux, text):
    with pytest.raises(Refused, match=text):
        lowered(document(**linux))


def test_a_host_name_needs_a_namespace_of_its_own():
    found = document(namespaces=namespaces("mount", "pid"))

    with pytest.raises(Refused, match="UTS"):
        lowered(found)


def test_words_of_a_mount():
    found = document()
    found["mounts"] = [
        {"destination": "/a", "source": "/x", "options": ["rbind", "ro", "rro", "rslave", "unknown=1"]},
        {
            "destination": "/b",
            "type": "tmpfs",
            "source": "t",
            "options": ["tmpcopyup", "size=1k", "sync", "nodev"],
        },
    ]
    bind, tmpfs = lowered(found).mounts

    assert bind.is_bind
    assert bind.options.is_recursive
    assert bind.recursive_set == mount.MOUNT_ATTR_RDONLY
    assert (bind.options.propagation, bind.is_recursive_propagation) == ("slave", True)
    assert tmpfs.copies_up
    assert tmpfs.options.data == {"size": "1k", "sync": None}
    assert tmpfs.options.set_attributes == mount.MOUNT_ATTR_NODEV


@pytest.mark.parametrize(
    "entry",
    [
        {"destination": "/a", "source": "/x"},
        {"destination": "/a", "type": "tmpfs", "options": ["idmap"]},
        {"destination": "/a", "type": "bind", "uidMappings": [{"size": 1}]},
    ],
)
def test_mounts_that_contradict_themselves(entry):
    with pytest.raises(Refused):
        lowered(document() | {"mounts": [entry]})


def test_default_nodes_come_unless_dev_is_brought():
    brought = document() | {"mounts": [{"destination": "/dev/", "source": "/dev", "options": ["rbind"]}]}

    assert {item.path for item in lowered(document()).devices} >= {"/dev/null", "/dev/tty"}
    assert lowered(brought).devices == ()


def test_device_rules_are_applied_in_their_order():
    deny_all, allow_all = CgroupDeviceRule(False), CgroupDeviceRule(True)
    fuse = CgroupDeviceRule(True, "c", 10, 229, "rw")

    assert device_rules([deny_all, allow_all]) == ALLOW_ALL
    assert DeviceRule("c", 10, 229, "rw") in device_rules([deny_all, fuse])
    assert DeviceRule("c", 10, 229, "rw") not in device_rules([fuse, deny_all])
    assert DeviceRule("c", 10, 229, "r") in device_rules([fuse, CgroupDeviceRule(False, "c", 10, 229, "w")])
    assert device_rules([allow_all, deny_all]) == device_rules([])
    with pytest.raises(Unsupported):
        device_rules([allow_all, CgroupDeviceRule(False, "c", 10, 229)])


def resources(**found):
    return parse_resources(Reader(found, "resources"))


def test_limits_on_both_hierarchies():
    given = resources(
        memory={"limit": 1 << 20, "swap": 3 << 20}, cpu={"shares": 1024, "quota": 50000}, pids={"limit": -1}
    )
    v1 = {write.file: write.value for write in resource_writes(given, is_v2=False)}
    v2 = {write.file: write.value for write in resource_writes(given, is_v2=True)}

    assert v1 == {
        "memory.limit_in_bytes": "1048576",
        "memory.memsw.limit_in_bytes": "3145728",
        "cpu.shares": "1024",
        "cpu.cfs_quota_us": "50000",
        "pids.max": "max",
    }
    assert v2 == {
        "memory.max": "1048576",
        "memory.swap.max": "2097152",
        "cpu.weight": "100",
        "cpu.max": "50000 100000",
        "pids.max": "max",
    }


def test_nothing_given_is_nothing_written():
    assert resource_writes(resources(), is_v2=False) == []
    assert resource_writes(resources(), is_v2=True) == []


def test_unified_needs_the_unified_hierarchy():
    given = resources(unified={"memory.high": "1000"})

    assert resource_writes(given, is_v2=True)[0].file == "memory.high"
    with pytest.raises(Unsupported):
        resource_writes(given, is_v2=False)


def process_of(**changes):
    found = starting_config()
    found["process"] |= changes
    config = parse_config(json.dumps(found).encode())
    return config.process, config.linux


def test_capability_sets_are_those_of_the_document():
    sets = {"bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]}
    plan = plan_process(*process_of(capabilities=sets))

    assert plan.sets.effective == 0
    assert plan.sets.permitted & ~1 == 0
    assert plan.sets.ambient == 0  # not inheritable


def test_security_modules_that_the_host_lacks_are_no_detail(monkeypatch):
    monkeypatch.setattr("orlop.bundle.processes._read", lambda _: "")
    for key in ("apparmorProfile", "selinuxLabel"):
        with pytest.raises(Unsupported):
            plan_extras(*process_of(**{key: "x"}))


@pytest.mark.parametrize(
    "changes",
    [
        {"rlimits": [{"type": "RLIMIT_NONE", "soft": 1, "hard": 1}]},
        {"env": ["NOEQUALS"]},
        {"scheduler": {"policy": "SCHED_NONE"}},
        {"ioPriority": {"class": "X"}},
    ],
)
def test_a_process_that_cannot_be(changes):
    def plan():
        plan_process(*process_of(**changes))
        plan_extras(*process_of(**changes))

    with pytest.raises(Refused):
        plan()


@pytest.mark.parametrize(
    ("text", "number"), [("9", 9), ("KILL", 9), ("sigkill", 9), ("RTMIN+1", 35), ("0", 0)]
)
def test_signals(text, number):
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "NONE", "-1", "999", "RTMIN+x", "RTMAX+1"])
def test_what_is_no_signal(text):
    with pytest.raises(Refused):
        signal_number(text)


FLAGS = {
    "bundle": Flag(short="b"),
    "detach": Flag("flag", "d"),
    "env": Flag("list", "e"),
    "n": Flag("number"),
}


def test_flags_in_every_form():
    parsed = parse_flags(
        ["-b", "x", "--env=A=1", "-e", "B", "--detach", "--n", "0x10", "id", "--detach=no"], FLAGS
    )

    assert parsed.text("bundle") == "x"
    assert parsed.texts("env") == ["A=1", "B"]
    assert parsed.is_set("detach")
    assert parsed.number("n") == 16
    assert parsed.words == ["id", "--detach=no"]


@pytest.mark.parametrize("words", [["--none"], ["-b"], ["--detach=maybe"]])
def test_wrong_flags(words):
    with pytest.raises(Refused):
        parse_flags(words, FLAGS)


def test_features_name_what_is_there():
    document = features_document()

    assert {"rro", "idmap", "rbind"} <= set(document["mountOptions"])
    assert "SCMP_ACT_NOTIFY" not in document["linux"]["seccomp"]["actions"]
    assert document["linux"]["cgroup"]["systemd"] is False
