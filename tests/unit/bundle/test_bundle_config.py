"""config.json as values: what is read, and what is refused with the path of its field."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.bundle.config import parse_config, parse_process
from orlop.bundle.config_linux import IdMapping
from orlop.bundle.knowledge import starting_config
from orlop.oci.strictjson import MalformedDocument


def parsed(**changes):
    return parse_config(json.dumps(starting_config() | changes).encode())


def with_process(**changes):
    return parsed(process=starting_config()["process"] | changes)


def with_linux(**changes):
    return parsed(linux=starting_config()["linux"] | changes)


def test_the_starting_config_is_read_whole():
    config = parsed()

    assert config.process.args == ("sh",)
    assert config.process.has_terminal
    assert config.process.rlimits == {"RLIMIT_NOFILE": (1024, 1024)}
    assert config.root.is_readonly
    assert [item.destination for item in config.mounts][:2] == ["/proc", "/dev"]
    assert config.linux.namespace("pid").path == ""
    assert config.linux.namespace("user") is None
    assert not config.linux.resources.devices[0].is_allowed


def test_unknown_fields_are_passed_over_and_null_is_absent():
    config = parsed(future={"x": [1]}, hooks=None, annotations=None, hostname=None)

    assert config.hostname == ""
    assert config.hooks.prestart == ()


def test_numbers_up_to_unsigned_64_bits_are_taken_where_the_spec_has_them():
    config = with_process(rlimits=[{"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1}])

    assert config.process.rlimits["RLIMIT_CORE"] == (2**64 - 1, 2**64 - 1)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"ociVersion": "2.0.0"}, "ociVersion"),
        ({"ociVersion": 1}, "ociVersion"),
        ({"root": None}, "root.path"),
        ({"root": {"path": 3}}, "root.path"),
        ({"root": {"path": "a\0b"}}, "root.path"),
        ({"hostname": "x" * 65}, "hostname"),
        ({"mounts": {}}, "mounts"),
        ({"mounts": [{"destination": "/a"}, {"options": "ro"}]}, "mounts[1].destination"),
        ({"mounts": [{"destination": "/a", "options": ["ro", 1]}]}, "mounts[0].options[1]"),
        ({"hooks": {"prestart": [{"path": "relative"}]}}, "hooks.prestart[0].path"),
        ({"hooks": {"poststop": [{"path": "/x", "timeout": 0}]}}, "hooks.poststop[0].timeout"),
        ({"annotations": {"": "x"}}, "annotations"),
        ({"annotations": {"a": 1}}, "annotations.a"),
        ({"process": {"cwd": "/"}}, "process.args"),
        ({"linux": []}, "linux"),
    ],
)
def test_wrong_documents_are_refused_with_the_place(changes, place):
    with pytest.raises(MalformedDocument) as caught:
        parsed(**changes)

    assert caught.value.message.startswith(f"{place}: ")


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"cwd": "relative"}, "process.cwd"),
        ({"user": {"uid": -1}}, "process.user.uid"),
        ({"user": {"uid": 2**32 - 1}}, "process.user.uid"),
        ({"user": {"additionalGids": [1, True]}}, "process.user.additionalGids[1]"),
        ({"rlimits": [{"type": "NOFILE"}]}, "process.rlimits[0].type"),
        ({"rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]}, "process.rlimits[0].soft"),
        ({"rlimits": [{"type": "RLIMIT_CPU"}] * 2}, "process.rlimits[1].type"),
        ({"oomScoreAdj": 1001}, "process.oomScoreAdj"),
        ({"terminal": "yes"}, "process.terminal"),
        ({"capabilities": {"bounding": "ALL"}}, "process.capabilities.bounding"),
        ({"consoleSize": {"height": 1 << 20}}, "process.consoleSize.height"),
    ],
)
def test_a_wrong_process_is_refused_with_the_place(changes, place):
    with pytest.raises(MalformedDocument) as caught:
        with_process(**changes)

    assert caught.value.message.startswith(f"{place}: ")


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"namespaces": [{"type": "net"}]}, "linux.namespaces[0].type"),
        ({"namespaces": [{"type": "pid"}, {"type": "pid"}]}, "linux.namespaces[1].type"),
        ({"namespaces": [{"type": "pid", "path": "x"}]}, "linux.namespaces[0].path"),
        ({"uidMappings": [{"containerID": 0, "hostID": 0}]}, "linux.uidMappings[0].size"),
        ({"uidMappings": [{"size": 1}] * 341}, "linux.uidMappings"),
        ({"devices": [{"type": "x", "path": "/dev/x"}]}, "linux.devices[0].type"),
        ({"devices": [{"type": "c", "path": "dev/x"}]}, "linux.devices[0].path"),
        ({"resources": {"devices": [{"access": "rx"}]}}, "linux.resources.devices[0].access"),
        ({"resources": {"cpu": {"cpus": "0;1"}}}, "linux.resources.cpu.cpus"),
        ({"resources": {"unified": {"../x": "1"}}}, "linux.resources.unified"),
        ({"resources": {"unified": {"cgroup.procs": "1"}}}, "linux.resources.unified"),
        (
            {"resources": {"hugepageLimits": [{"pageSize": "../2MB"}]}},
            "linux.resources.hugepageLimits[0].pageSize",
        ),
        ({"rootfsPropagation": "sharing"}, "linux.rootfsPropagation"),
        ({"seccomp": []}, "linux.seccomp"),
    ],
)
def test_a_wrong_linux_object_is_refused_with_the_place(changes, place):
    with pytest.raises(MalformedDocument) as caught:
        with_linux(**changes)

    assert caught.value.message.startswith(f"{place}: ")


def test_two_readings_of_one_document_are_refused():
    for text in (
        '{"a":1,"a":2}',
        '{"root":{},"Root":{}}',
        '{"a":NaN}',
        "[]",
        "{",
        '{"a":99999999999999999999}',
    ):
        with pytest.raises(MalformedDocument):
            parse_config(text.encode())


def test_mappings_are_numbers():
    config = with_linux(uidMappings=[{"containerID": 0, "hostID": 100000, "size": 65536}])

    assert config.linux.uid_mappings == (IdMapping(0, 100000, 65536),)


def test_a_process_document_stands_alone():
    process = parse_process(b'{"args":["id"],"cwd":"/tmp","user":{"uid":5}}')

    assert (process.args, process.cwd, process.user.uid) == (("id",), "/tmp", 5)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["process", "root", "mounts", "linux", "hooks", "annotations"]),
    st.sampled_from(
        ["args", "user", "rlimits", "resources", "seccomp", "devices", "prestart", "path", "options"]
    ),
    values,
)
def test_any_wrong_value_is_a_refusal_and_no_crash(key, inner, value):
    document = starting_config()
    target = document.get(key)
    document[key] = (
        (target | {inner: value}) if isinstance(target, dict) else [{"destination": "/x", inner: value}]
    )
    with contextlib.suppress(MalformedDocument):
        parse_config(json.dumps(document).encode())
