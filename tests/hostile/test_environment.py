"""Environment, labels and annotations: they reach the program as they are, and nothing of the host."""

import json
import os

import pytest

from support.hostile import FILE, load

pytestmark = pytest.mark.system

VALUES = {
    "newline": "A=one\nB=two",
    "equals": "A==x=y=",
    "empty": "A=",
    "spaces": "A= \t x ",
    "escapes": "A=\x1b[31m\x07$(touch /x)`id`%s\\n",
    "not-ascii": "A=\u202e\u0000".rstrip("\0") + "bücher\U0001f40b",
    "surrogate": "A=\udc80x",
    "long": "A=" + "x" * 100_000,
    "name-of-signs": "a b-c.d/e(){:;}=value",
    "shellshock": "BASH_FUNC_x%%=() { :;}; touch /x",
}


def shown(output):
    """name -> value of /proc/self/environ, NUL-separated."""
    return dict(item.partition("=")[::2] for item in output.split("\0") if item)


@pytest.mark.parametrize("name", VALUES)
def test_values_arrive_as_they_are(door, started, name):
    """CVE-2020-14370, CVE-2018-10856: every variable is one variable, of this process and of no other."""
    key, _, value = VALUES[name].partition("=")
    running = started(Env=["FIRST=1", VALUES[name], "LAST=2"])
    wanted = value.encode("utf-8", "replace").decode() if name != "surrogate" else "\ufffdx"

    at_start = shown(door.execute(running, "cat", "/proc/1/environ").output)
    at_exec = shown(door.execute(running, "cat", "/proc/self/environ", Env=[VALUES[name], "EXEC=3"]).output)
    again = shown(door.execute(running, "cat", "/proc/self/environ").output)

    value = wanted.replace("\n", "\n")
    assert at_start[key] == value
    assert (at_start["FIRST"], at_start["LAST"]) == ("1", "2")
    assert at_exec[key] == value
    assert at_exec["EXEC"] == "3"
    assert "EXEC" not in again
    assert set(at_start) <= {"PATH", "HOSTNAME", "HOME", "TERM", "FIRST", "LAST", key}


@pytest.mark.parametrize("bad", ["", "=x", "=", "A\0B=1", "A=1\0B=2", "\0"])
def test_what_is_no_variable_is_refused(door, started, bad):
    """CVE-2026-53492 and its like: a NUL or an empty name would shift what follows."""
    running = started()

    made = door.create("busybox", "env", Env=["GOOD=1", bad])
    execed = door.execute(running, "env", Env=["GOOD=1", bad])

    assert made.status == 400, made.body
    assert made.message.startswith("invalid")
    if "\0" in bad:
        assert execed.status == 400, execed
        assert execed.error.startswith("invalid")
    else:  # as in Docker, where only clients look at it
        assert {"GOOD=1", "HOME=/root"} <= set(execed.output.splitlines())
        assert not any(line.startswith("=") for line in execed.output.splitlines())


def test_words_with_a_nul(door, started):
    """CVE-2026-30892 and its like, for the words of commands, directories and users."""
    running = started()
    for config in (
        {"Cmd": ["echo", "a\0b"]}, {"WorkingDir": "/a\0b"}, {"User": "root\0"}, {"Cmd": ["e\0"]},
    ):  # fmt: skip
        made = door.ask("POST", f"/containers/{running}/exec", {"Cmd": ["true"], **config})
        assert made.status == 400, (config, made.body)
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}, **config}
        assert door.ask("POST", "/containers/create", body).status == 400, config
    for config in ({"Hostname": "a\0b"}, {"Domainname": "a\0"}, {"Entrypoint": ["a\0"]}):
        done = door.run("busybox", "true", **config)
        assert done.status == 400, (config, done)


def test_variables_that_do_not_fit(door, started):
    """CVE-2026-47262 and its like: a megabyte in one value is the kernel's E2BIG, told and survived."""
    running = started()
    big = "A=" + "x" * (1 << 20)

    done, inside = door.run("busybox", "true", Env=[big]), door.execute(running, "true", Env=[big])
    many = door.run(
        "busybox", "sh", "-c", "env | wc -l", Env=[f"V{number}={number}" for number in range(20_000)]
    )

    assert "argument list too long" in done.error
    assert "argument list too long" in inside.output
    assert done.status in (400, 500)
    assert int(many.output.split()[-1]) >= 20_000


def test_labels_and_annotations_of_any_size_and_kind(door):
    """CVE-2026-53488: what is stored comes back as it was and is no more than text."""
    values = {
        "big": "x" * (1 << 20),
        "new\nline": "a\nb\0c",
        "": "empty",
        "a=b": "{{.}}",
        "<script>": "\x1b]0;x\x07",
    }

    made = door.create("busybox", "true", Labels=values, host={"Annotations": values})
    assert made.status in (201, 400), made.message
    if made.status == 201:
        found = door.ask("GET", f"/containers/{made.value()['Id']}/json").value()
        assert found["Config"]["Labels"] == values
        listed = door.ask("GET", "/containers/json", all=1, filters=json.dumps({"label": ["a=b={{.}}"]}))
        assert listed.status == 200


ENGINE_WORDS = {
    "orlop.health-on-failure": "restart",
    "io.containerd.runc.v2.group": "x",
    "io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel": "true",
    "io.kubernetes.cri-o.Devices": "/dev/sda:rwm",
    "org.systemd.property.ExecStopPost": "'/bin/sh'",
    "run.oci.hooks.stderr": "/tmp/x",
    "run.oci.handler": "krun",
    "run.oci.seccomp_bpf_data": "AA==",
    "run.oci.mount_context_type": "x",
    "containerd.io/restart.loguri": "binary:///bin/sh",
    "containerd.io/restart.status": "running",
    "io.podman.annotations.privileged": "TRUE",
    "io.podman.annotations.cid-file": "/tmp/x",
    "io.podman.annotations.seccomp": "unconfined",
    "module.wasm.image/variant": "compat",
    "com.docker.compose.project": "x",
    "org.criu.config": "/etc/criu.conf",
    "security.alpha.kubernetes.io/seccomp/pod": "unconfined",
}
CLOSED = "grep -E '^(CapEff|Seccomp:|NoNewPrivs)' /proc/self/status; ls /dev | tr '\\n' ' '; cat /proc/kcore 2>/dev/null | wc -c"


def test_an_image_sets_nothing_but_what_it_may(engine, door):
    """CVE-2026-53488, CVE-2026-53492, CVE-2023-6476, CVE-2024-3154, CVE-2025-24965: labels, annotations, hooks, host
    settings and log drivers in an image's configuration are data."""
    evil = {
        "Labels": ENGINE_WORDS,
        "Annotations": ENGINE_WORDS,
        "HostConfig": {"Privileged": True, "Binds": ["/:/host"], "CapAdd": ["ALL"], "PidMode": "host"},
        "Privileged": True,
        "hooks": {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "touch /orlop-hook"]}]},
        "LogConfig": {"Type": "binary:///bin/sh"},
        "Runtime": "crun",
        "SecurityOpt": ["seccomp=unconfined"],
        "Devices": [{"PathOnHost": "/dev/mem"}],
        "NetworkDisabled": True,
        "Orlop": {"HealthOnFailure": "restart", "ApiSocket": "full"},
        "MacAddress": "02:00:00:00:00:01",
        "Healthcheck": {"Test": ["CMD", "false"], "Interval": 10**8, "Retries": 1},
    }
    load(engine, "evil:1", **evil)

    plain = door.run("busybox", "sh", "-c", CLOSED)
    done = door.run("evil:1", "sh", "-c", CLOSED)
    made = door.create("evil:1", "true").value()["Id"]
    found = door.ask("GET", f"/containers/{made}/json").value()

    assert plain.output == done.output
    assert found["HostConfig"]["Privileged"] is False
    assert not found["HostConfig"]["Binds"]
    assert not found["HostConfig"]["CapAdd"]
    assert found["HostConfig"]["LogConfig"]["Type"] == "json-file"
    assert not found["HostConfig"].get("Annotations")
    assert not os.path.exists("/orlop-hook")


def test_annotations_of_the_caller_are_data_too(door):
    """CVE-2023-6476, CVE-2025-47291: an annotation lifts no limit and opens nothing."""
    plain = door.run("busybox", "sh", "-c", CLOSED, host={"PidsLimit": 20})
    done = door.run("busybox", "sh", "-c", CLOSED, host={"PidsLimit": 20, "Annotations": ENGINE_WORDS})

    assert plain.output == done.output


def test_an_image_with_a_broken_environment(engine, door):
    """CVE-2018-20699, CVE-2024-36620 for the image's side: what its configuration says is checked, too."""
    for config in (
        {"Env": ["A\0B=1"]}, {"Env": ["=x", "", "NOEQUALS"]}, {"Cmd": ["a\0b"]}, {"WorkingDir": "/a\0b"},
        {"User": "\0"}, {"Entrypoint": [""]}, {"Cmd": [""]}, {"StopSignal": "SIGNONSENSE"}, {"ExposedPorts": {"x/y": {}}},
        {"Volumes": {"/\0": {}, "": {}, "..": {}}}, {"Healthcheck": {"Test": ["WHAT"], "Interval": -1}}, {"Shell": [1]},
    ):  # fmt: skip
        try:
            load(engine, "evil:2", ("marker", FILE, b""), **config)
        except AssertionError:
            continue  # refused at once
        made = door.create("evil:2")
        assert made.status in (201, 400, 404), (config, made.body)
        if made.status == 201:
            name = made.value()["Id"]
            started = door.ask("POST", f"/containers/{name}/start")
            assert started.status in (204, 400, 404, 409, 500), (config, started.body)
            assert "internal error" not in started.message, (config, started.message)
            door.ask("DELETE", f"/containers/{name}", force=1, v=1)


def test_the_engine_s_own_environment_reaches_nobody(engine, door, started):
    """CVE-2021-3602: what the engine was started with is not in a container, an exec, a probe or a step."""
    secrets = {name for name in os.environ if name.startswith(("PYTEST", "SSH", "AWS"))} | {
        "PYTHONPATH",
        "PYTHONDONTWRITEBYTECODE",
    }
    running = started()

    found = shown(door.execute(running, "cat", "/proc/self/environ").output)
    first = shown(door.execute(running, "cat", "/proc/1/environ").output)

    assert secrets & (set(found) | set(first)) == set()
