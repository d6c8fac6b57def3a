"""The version history of the API for containers, execs and the system, line by line: what changes when."""

from __future__ import annotations

import copy
import json

import pytest
from toy import call

from orlop.api.app import App, build_routes
from orlop.api.docker.request_shims import REQUEST_SHIMS
from orlop.api.docker.shims import SHIMS
from orlop.api.request import json_response
from orlop.api.routes import Route
from orlop.api.versions import MAX_VERSION, MIN_VERSION

ID = "0123456789abcdef" * 4
JSON = {"content-type": "application/json"}

INFO = {
    "KernelVersion": "",
    "OperatingSystem": "Debian",
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
    "RegistryConfig": {},
    "RuncCommit": {"ID": "none"},
    "DiscoveredDevices": [{"ID": "x"}],
}
INSPECT = {
    "Id": ID,
    "State": {"Status": "removing"},
    "Config": {},
    "HostConfig": {},
    "NetworkSettings": {
        "MacAddress": "02:42",
        "Networks": {"own": {"Aliases": None}, "none": {"Aliases": None}},
    },
}
USAGE = {
    "Images": [{"Size": 7}],
    "BuildCache": [{"Size": 3, "Parents": ["p"]}, {"Size": 4}],
}

# operation, last version with the old form, the current form, how to look at it, old value, new value
ANSWERS = [
    ("SystemInfo", "1.49", INFO, lambda v: v.get("BridgeNfIptables"), True, None),
    ("SystemInfo", "1.49", INFO, lambda v: "DiscoveredDevices" in v, False, True),
    ("SystemInfo", "1.48", INFO, lambda v: v["RuncCommit"].get("Expected"), "none", None),
    (
        "SystemInfo", "1.48", INFO,
        lambda v: v["RegistryConfig"].get("AllowNondistributableArtifactsCIDRs"), [], None,
    ),
    ("SystemInfo", "1.41", INFO, lambda v: (v.get("KernelMemory"), v.get("KernelMemoryTCP")), (False, False), (None, None)),
    ("SystemInfo", "1.38", INFO, lambda v: (v["KernelVersion"], v["OperatingSystem"]), ("<unknown>", "Debian"), ("", "Debian")),
    ("SystemInfo", "1.24", INFO, lambda v: v["SecurityOptions"], ["seccomp", "cgroupns"], INFO["SecurityOptions"]),
    ("SystemInfo", "1.24", INFO, lambda v: v.get("ExecutionDriver"), "<not supported>", None),
    (
        "ContainerInspect", "1.44", INSPECT,
        lambda v: v["NetworkSettings"]["Networks"]["own"]["Aliases"],
        [ID[:12]], None,
    ),
    ("ContainerInspect", "1.43", INSPECT, lambda v: v["Config"].get("MacAddress"), "02:42", None),
    ("ContainerInspect", "1.41", INSPECT, lambda v: v["HostConfig"].get("KernelMemory"), 0, None),
    ("ContainerInspect", "1.24", INSPECT, lambda v: v["State"]["Status"], "exited", "removing"),
    ("ContainerList", "1.24", [{"State": "removing"}], lambda v: v[0]["State"], "exited", "removing"),
    ("SystemDataUsage", "1.43", USAGE, lambda v: v["Images"][0].get("VirtualSize"), 7, None),
    ("SystemDataUsage", "1.41", USAGE, lambda v: v.get("BuilderSize"), 7, None),
    ("SystemDataUsage", "1.41", USAGE, lambda v: v["BuildCache"][0].get("Parent"), "p", None),
]  # fmt: skip


def following(version):
    major, minor = version.split(".")
    return f"{major}.{int(minor) + 1}"


def answer(operation, version, value):
    async def handler(_engine, _request):
        return json_response(copy.deepcopy(value))

    app = App(object(), (Route(operation, "GET", "/it", handler),))
    return call(app, "GET", f"/v{version}/it")[2]


@pytest.mark.parametrize(("operation", "until", "current", "look", "old", "new"), ANSWERS)
def test_an_answer_has_the_form_of_the_clients_version(operation, until, current, look, old, new):
    assert look(answer(operation, until, current)) == old
    assert look(answer(operation, following(until), current)) == new


def mount(**options):
    return {"HostConfig": {"Mounts": [{"Type": "bind", "Target": "/x", **options}]}}


def options_of(name):
    return lambda body: body["HostConfig"]["Mounts"][0].get(name) or {}


# operation, last version without it, the body, how to look at what the handler gets
BODIES = [
    ("ContainerCreate", "1.45", mount(TmpfsOptions={"Options": [["exec"]]}), options_of("TmpfsOptions")),
    ("ContainerCreate", "1.44", mount(VolumeOptions={"Subpath": "a"}), options_of("VolumeOptions")),
    ("ContainerCreate", "1.43", {"Healthcheck": {"StartInterval": 5}}, lambda v: v["Healthcheck"]),
    ("ContainerCreate", "1.43", mount(BindOptions={"ReadOnlyForceRecursive": True}), options_of("BindOptions")),
    ("ContainerCreate", "1.42", {"HostConfig": {"Annotations": {"a": "b"}}}, lambda v: v["HostConfig"]),
    ("ContainerCreate", "1.41", mount(BindOptions={"CreateMountpoint": True}), options_of("BindOptions")),
    ("ContainerCreate", "1.41", {"hostconfig": {"consolesize": [1, 2]}}, lambda v: v["hostconfig"]),
    ("ContainerExec", "1.41", {"ConsoleSize": [1, 2]}, lambda v: v),
    ("ExecStart", "1.41", {"ConsoleSize": [1, 2]}, lambda v: v),
    ("ContainerCreate", "1.40", {"HostConfig": {"IpcMode": "none", "CgroupnsMode": "host"}}, lambda v: v["HostConfig"].get("CgroupnsMode")),
    ("ContainerCreate", "1.39", mount(BindOptions={"NonRecursive": True}), options_of("BindOptions")),
    ("ContainerUpdate", "1.39", {"PidsLimit": 4}, lambda v: v),
    ("ContainerExec", "1.34", {"WorkingDir": "/x"}, lambda v: v),
    ("ContainerCreate", "1.28", {"Healthcheck": {"StartPeriod": 5}}, lambda v: v["Healthcheck"]),
    ("ContainerUpdate", "1.27", {"NanoCpus": 4}, lambda v: v),
    ("ContainerExec", "1.24", {"Env": ["A=b"]}, lambda v: v),
    ("ContainerCreate", "1.24", {"StopTimeout": 4}, lambda v: v.get("StopTimeout")),
]  # fmt: skip


def asked(operation, version, body, query=""):
    """The body and the parameters as the handler gets them."""
    seen = {}

    async def handler(_engine, request):
        seen["body"] = json.loads(await request.current_body(1 << 20))
        seen["has"] = bool(query) and query[1:].partition("=")[0] in request.query
        return json_response({})

    app = App(object(), (Route(operation, "POST", "/it", handler),))
    status = call(app, "POST", f"/v{version}/it{query}", json.dumps(body).encode(), headers=JSON)[0]
    assert status == 200
    return seen


@pytest.mark.parametrize(("operation", "until", "body", "look"), BODIES)
def test_what_a_version_does_not_have_is_not_heard(operation, until, body, look):
    assert not look(asked(operation, until, body)["body"])
    assert look(asked(operation, following(until), body)["body"])


def test_ipc_of_old_clients_can_be_shared():
    assert asked("ContainerCreate", "1.39", {})["body"]["HostConfig"]["IpcMode"] == "shareable"
    given = asked("ContainerCreate", "1.39", {"HostConfig": {"ipcmode": "private"}})["body"]["HostConfig"]
    assert given == {"ipcmode": "private"}
    assert asked("ContainerCreate", "1.40", {})["body"] == {}


@pytest.mark.parametrize(
    ("operation", "until", "name"),
    [
        ("ContainerStop", "1.41", "signal"),
        ("ContainerRestart", "1.41", "signal"),
        ("SystemDataUsage", "1.41", "type"),
        ("ContainerStats", "1.40", "one-shot"),
        ("ContainerCreate", "1.40", "platform"),
        ("ContainerLogs", "1.34", "until"),
        ("ContainerWait", "1.29", "condition"),
    ],
)
def test_parameters_of_later_versions_are_ignored(operation, until, name):
    assert not asked(operation, until, {}, f"?{name}=1")["has"]
    assert asked(operation, following(until), {}, f"?{name}=1")["has"]


def test_bodies_of_the_newest_version_are_not_touched():
    assert not [row for row in (*SHIMS, *REQUEST_SHIMS) if not MIN_VERSION <= row.until < MAX_VERSION]


@pytest.mark.parametrize("body", [{"HostConfig": []}, {"HostConfig": {"Mounts": [1, {"BindOptions": 2}]}}])
def test_bodies_of_any_form_survive_the_rows(body):
    assert asked("ContainerCreate", "1.24", body)["body"]["HostConfig"] is not None


def test_every_row_is_about_an_operation():
    names = {route.operation for route in build_routes()}

    assert {row.operation for row in (*SHIMS, *REQUEST_SHIMS)} <= names
