"""CDI: spec files are read strictly, conflicts give nothing, and edits end in the spec of a container."""

import json
import os

import pytest

from orlop.base.errors import InvalidInput
from orlop.engine import cdi_registry
from orlop.engine.cdi import is_qualified_name, parse_spec
from orlop.engine.cdi_inject import inject, requested_names
from orlop.engine.requests import DeviceRequest
from orlop.runtime.spec import ContainerSpec, DeviceSpec, LogSpec, MountSpec, ProcessSpec, RootSpec

GPU = DeviceRequest(count=-1, capabilities=(("gpu",),))


def document(*names, kind="vendor.com/thing", edits=None, **common):
    devices = [{"name": name, "containerEdits": edits or {"env": [f"D={name}"]}} for name in names]
    return {"cdiVersion": "0.8.0", "kind": kind, "devices": devices, **common}


def write(directory, name, data):
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(data if isinstance(data, str) else json.dumps(data))
    return str(directory)


def spec(**process):
    made = ProcessSpec(("true",), **process)
    return ContainerSpec("c", "/run", RootSpec(("/",), None, None), made, LogSpec("none", ""))


def ask(*names):
    return (DeviceRequest("cdi", device_ids=names),)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("vendor.com/gpu=0", True),
        ("a/b=c:d.e", True),
        ("/dev/null", False),
        ("/dev/null:/dev/x=y", False),
        ("vendor.com=0", False),
        ("v/c=", False),
        ("v/c=-", False),
    ],
)
def test_names(text, is_one):
    assert is_qualified_name(text) is is_one


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cdiVersion": "9.0.0"}, "unknown cdiVersion"),
        ({"kind": "nonsense"}, "invalid kind"),
        ({"kind": "v/c=d"}, "invalid kind"),
        ({"devices": []}, "no devices"),
        ({"devices": {}}, "devices is no list"),
        ({"devices": [{"name": "../x", "containerEdits": {}}]}, "invalid device name"),
        ({"devices": [{"name": "x"}]}, "has no containerEdits"),
        ({"containerEdits": {"env": ["=x"]}}, "not NAME=VALUE"),
        ({"containerEdits": {"env": "A=B"}}, "env is no list"),
        ({"containerEdits": {"deviceNodes": [{"path": "../x"}]}}, "no path in a container"),
        (
            {"containerEdits": {"deviceNodes": [{"path": "/dev/x", "permissions": "q"}]}},
            "invalid device node",
        ),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/x", "type": "p"}]}}, "is a pipe"),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/x", "major": -1}]}}, "major is out of range"),
        ({"containerEdits": {"mounts": [{"hostPath": "rel", "containerPath": "/x"}]}}, "invalid mount"),
        ({"containerEdits": {"mounts": [{"hostPath": "/a", "containerPath": "/../x"}]}}, "no path in a"),
        ({"containerEdits": {"hooks": [{"hookName": "always", "path": "/x"}]}}, "invalid hook name"),
        ({"containerEdits": {"additionalGids": [-1]}}, "gid is out of range"),
        ({"containerEdits": []}, "containerEdits is no object"),
    ],
)
def test_a_wrong_file_gives_no_device(change, text):
    with pytest.raises(InvalidInput, match=text):
        parse_spec(json.dumps(document("x") | change).encode(), "/etc/cdi/v.json")


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b'{"cdiVersion": "0.8.0"' + b"[" * 5000])
def test_what_is_no_json_is_told_with_the_file_s_name(data):
    with pytest.raises(InvalidInput, match=r"/etc/cdi/v\.json"):
        parse_spec(data, "/etc/cdi/v.json")


def test_yaml_is_said_not_to_be_read_unless_it_is_json(tmp_path):
    where = write(tmp_path, "a.yaml", "cdiVersion: 0.8.0\n")
    write(tmp_path, "b.yaml", document("x"))

    found = cdi_registry.load([where])

    assert found.names() == ("vendor.com/thing=x",)
    assert "a.yaml is YAML" in found.problems[0]


def test_a_later_directory_counts_more_and_two_files_of_one_are_in_conflict(tmp_path):
    first = write(tmp_path / "1", "a.json", document("x", "y"))
    second = write(tmp_path / "2", "b.json", document("x", edits={"env": ["D=second"]}))
    write(tmp_path / "2", "c.json", document("y"))
    write(tmp_path / "2", "d.json", document("y"))

    found = cdi_registry.load([first, second, "/nowhere"])

    assert found.names() == ("vendor.com/thing=x",)
    assert found.devices["vendor.com/thing=x"][1].edits.env == ("D=second",)
    assert "conflicting CDI device vendor.com/thing=y" in found.problems[0]


def test_pipes_and_other_files_in_the_directory_are_passed_over(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "directory.json").mkdir()
    write(tmp_path, "readme.txt", "hello")

    assert cdi_registry.load([str(tmp_path)]).names() == ()


def test_edits_end_in_the_spec(tmp_path):
    edits = {
        "env": ["A=new", "B=2"],
        "deviceNodes": [{"path": "/dev/mine", "hostPath": "/dev/null", "permissions": "rw", "gid": 44}],
        "mounts": [{"hostPath": "/usr/lib", "containerPath": "/opt/lib", "options": ["ro", "nosuid"]}],
        "additionalGids": [44],
    }
    where = write(tmp_path, "v.json", document("x", edits=edits, containerEdits={"env": ["COMMON=1"]}))

    after = inject(spec(env=("A=old", "Z=1")), ask("vendor.com/thing=x"), [where])

    assert after.process.env == ("Z=1", "COMMON=1", "A=new", "B=2")
    assert after.process.extra_groups == ("44",)
    assert after.devices == (DeviceSpec("/dev/mine", "c", 1, 3, 0o666, 0, 44, "rw"),)
    assert after.mounts == (MountSpec("bind", "/opt/lib", "/usr/lib", ("rbind", "ro", "nosuid")),)


def test_an_unknown_device_has_dockerd_s_words_and_the_reason(tmp_path):
    where = write(tmp_path, "v.json", "nonsense")

    with pytest.raises(InvalidInput) as caught:
        inject(spec(), ask("vendor.com/thing=x", "v/c=d"), [where])

    assert caught.value.message == (
        "CDI device injection failed: unresolvable CDI devices vendor.com/thing=x, v/c=d"
    )
    assert "v.json" in caught.value.hint


def test_hooks_are_refused_by_name(tmp_path):
    hook = {"hookName": "createContainer", "path": "/usr/bin/helper"}
    where = write(tmp_path, "v.json", document("x", containerEdits={"hooks": [hook]}))

    with pytest.raises(InvalidInput, match=r"hook createContainer \(/usr/bin/helper\)"):
        inject(spec(), ask("vendor.com/thing=x"), [where])


def test_a_node_that_is_gone_is_an_error(tmp_path):
    where = write(tmp_path, "v.json", document("x", edits={"deviceNodes": [{"path": "/dev/not-here"}]}))

    with pytest.raises(InvalidInput, match="failed to stat CDI host device '/dev/not-here'"):
        inject(spec(), ask("vendor.com/thing=x"), [where])


def test_gpus_without_a_driver_have_dockerd_s_words():
    with pytest.raises(InvalidInput) as caught:
        inject(spec(), (GPU,), [])

    assert caught.value.message == 'could not select device driver "" with capabilities: [[gpu]]'


@pytest.mark.parametrize(
    ("names", "request_", "expected"),
    [
        (("0", "1", "all"), GPU, ["all"]),
        (("0", "1"), GPU, ["0", "1"]),
        (("0", "1"), DeviceRequest(count=1, capabilities=(("gpu",),)), ["0"]),
        (("0", "1"), DeviceRequest("nvidia", device_ids=("1",), capabilities=(("gpu",),)), ["1"]),
    ],
)
def test_gpus_come_from_cdi(tmp_path, names, request_, expected):
    where = write(tmp_path, "n.json", document(*names, kind="nvidia.com/gpu"))

    found = requested_names(request_, cdi_registry.load([where]))

    assert found == [f"nvidia.com/gpu={name}" for name in expected]
