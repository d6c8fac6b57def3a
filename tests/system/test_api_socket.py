"""Containers with a socket of the engine and a role: what they may, and that it lives as long as they do."""

import json
import os
import socket
import time
from http.client import HTTPConnection

SOCKET = "/run/orlop/docker.sock"


class Connection(HTTPConnection):
    """To the socket as the container sees it: through its own root."""

    def __init__(self, pid):
        super().__init__("localhost", timeout=20)
        self._pid = pid

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(f"/proc/{self._pid}/root{SOCKET}")


class Holder:
    """A container that has a socket."""

    def __init__(self, engine, role, *more):
        self.engine, self.name = engine, f"has-{role}-{len(more)}"
        words = ("--name", self.name, "--network", "none", "--api-socket", role, *more)
        self.id = engine.orlop("run", "-d", *words, "busybox", "sleep", "1000").stdout.strip()

    def ask(self, method, path, body=None):
        """Status and answer of a request over the container's socket."""
        pid = self.engine.docker("inspect", "-f", "{{.State.Pid}}", self.name).stdout.strip()
        connection = Connection(pid)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(data) if data[:1] in (b"{", b"[") else data

    def refused(self, method, path, body=None):
        """The text of a 403."""
        status, answer = self.ask(method, path, body)
        assert status == 403, answer
        return answer["message"]


def plain(**host):
    return {"Image": "busybox", "Cmd": ["echo", "child"], "HostConfig": {"NetworkMode": "none", **host}}


def test_read_only_looks_and_touches_nothing(engine):
    holder = Holder(engine, "read-only")

    assert [item["Id"] for item in holder.ask("GET", "/containers/json")[1]] == [holder.id]
    assert "ContainerStop is not allowed to the role read-only" in holder.refused(
        "POST", f"/containers/{holder.id}/stop"
    )
    assert "ContainerCreate" in holder.refused("POST", "/containers/create", plain())
    assert "ContainerArchive" in holder.refused("GET", f"/containers/{holder.id}/archive?path=/etc")
    assert "ContainerExec" in holder.refused("POST", f"/v1.45/containers/{holder.id}/exec", {"Cmd": ["sh"]})
    found = json.loads(engine.docker("inspect", holder.name).stdout)[0]
    assert found["Orlop"] == {"ApiSocket": "read-only"}
    assert f"DOCKER_HOST=unix://{SOCKET}" in found["Config"]["Env"]
    engine.docker("exec", "-u", "65534", holder.name, "test", "-w", SOCKET)


def test_a_builder_cannot_leave_its_builds(engine):
    holder = Holder(engine, "build")

    assert holder.ask("GET", "/images/json")[0] == 200
    assert "no network or cgroup of others" in holder.refused("POST", "/build?networkmode=host")
    assert holder.ask("POST", "/build?networkmode=none")[0] != 403
    assert "ContainerList" in holder.refused("GET", "/containers/json")


def test_own_children_are_all_that_there_is(engine):
    holder = Holder(engine, "own-children")
    engine.docker("create", "--network", "none", "--name", "other", "busybox")

    status, made = holder.ask("POST", "/containers/create?name=child", plain())
    assert status == 201
    assert "HostConfig.privileged is not allowed" in holder.refused(
        "POST", "/containers/create", plain(Privileged=True)
    )
    assert "HostConfig.binds" in holder.refused("POST", "/containers/create", plain(Binds=["/:/host"]))
    assert [item["Id"] for item in holder.ask("GET", "/containers/json?all=1")[1]] == [made["Id"]]
    for reference in ("other", holder.name, holder.id):
        status, answer = holder.ask("DELETE", f"/containers/{reference}?force=1")
        assert (status, answer) == (404, {"message": f"No such container: {reference}"})
    assert holder.ask("POST", "/containers/child/start")[0] == 204
    assert holder.ask("POST", "/containers/child/wait")[1]["StatusCode"] == 0
    assert b"child" in holder.ask("GET", "/containers/child/logs?stdout=1")[1]
    assert "ContainerExec" in holder.refused("POST", "/containers/child/exec", {"Cmd": ["sh"]})
    assert holder.ask("DELETE", "/containers/child")[0] == 204


def test_a_child_is_no_way_out_of_what_confines_its_parent(engine):
    confined = ("--security-opt", "hardened", "--userns", "auto", "--cap-drop", "CHOWN")
    holder = Holder(engine, "own-children", *confined, "--security-opt", "apparmor=unconfined")

    words = [holder.ask("POST", f"/containers/create?name=inner{n}", plain())[0] for n in range(3)]
    assert words == [201] * 3
    found = json.loads(engine.docker("inspect", "inner0").stdout)[0]["HostConfig"]
    assert set(found["SecurityOpt"]) == {"hardened=true", "no-new-privileges"}
    assert {"CHOWN", "CAP_MKNOD", "CAP_NET_RAW"} <= set(found["CapDrop"])
    assert found["UsernsMode"] == "auto"
    status, answer = holder.ask("POST", "/containers/create?name=netted", plain(NetworkMode="bridge"))
    assert status == 201, answer
    assert engine.docker("inspect", "-f", "{{.HostConfig.NetworkMode}}", "netted").stdout.strip() == "none"
    # the newest of its own, whatever others there are
    engine.docker("create", "--network", "none", "--name", "newer", "busybox")
    assert [item["Names"] for item in holder.ask("GET", "/containers/json?limit=1")[1]] == [["/netted"]]


def test_the_socket_lives_as_long_as_its_container(fresh_engine):
    holder = Holder(fresh_engine, "read-only")
    fresh_engine.kill()
    fresh_engine.start()
    deadline = time.monotonic() + 20
    while True:
        try:
            assert holder.ask("GET", "/containers/json")[0] == 200
            break
        except OSError:
            assert time.monotonic() < deadline, "the socket does not come back"
            time.sleep(0.02)

    fresh_engine.docker("restart", "-t", "0", holder.name)
    assert holder.ask("GET", "/_ping") == (200, b"OK")
    fresh_engine.docker("rm", "-f", holder.name)
    deadline = time.monotonic() + 20
    while os.listdir(fresh_engine.exec_root / "api"):
        assert time.monotonic() < deadline, "the directory is left"
        time.sleep(0.02)


def test_a_role_that_does_not_exist_is_refused(engine):
    done = engine.orlop("create", "--api-socket", "root", "busybox", check=False)

    assert done.returncode == 1
    assert "invalid role of an API socket 'root'" in done.stderr
