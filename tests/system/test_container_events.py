"""What listeners are told about containers; the names and attributes are dockerd's."""

import http.client
import json
import socket
import subprocess
import time

import pytest

pytestmark = pytest.mark.system


class Events:
    """The events since this was made."""

    def __init__(self, engine):
        self._engine = engine
        self._since = time.time()

    def until(self, action, timeout_s=30, **filters):
        """All of them so far, once `action` is the beginning of the action of one."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.all(**filters)
            if any(event["Action"].startswith(action) for event in found):
                return found
            assert time.monotonic() < deadline, (action, [event["Action"] for event in found])
            time.sleep(0.05)

    def all(self, **filters):
        words = [word for name, value in filters.items() for word in ("-f", f"{name}={value}")]
        span = ("--since", f"{self._since:.9f}", "--until", f"{time.time():.9f}")
        shown = self._engine.docker("events", *span, *words, "--format", "{{json .}}").stdout
        return [json.loads(line) for line in shown.splitlines()]


@pytest.fixture
def events(engine):
    return Events(engine)


def actions(found, type_="container"):
    return [event["Action"] for event in found if event["Type"] == type_]


def attributes(found, action):
    return next(event["Actor"]["Attributes"] for event in found if event["Action"] == action)


def run(engine, name, *words, flags=()):
    engine.docker("run", "-d", "--network", "none", "--name", name, *flags, "busybox", *words)


def test_the_life_of_a_container(engine, events):
    run(engine, "lives", "sleep", "100", flags=("--label", "tier=front"))
    engine.docker("pause", "lives")
    engine.docker("unpause", "lives")
    engine.docker("rename", "lives", "lived")
    engine.docker("update", "--restart", "no", "lived")
    engine.docker("top", "lived")
    engine.docker("kill", "-s", "WINCH", "lived")
    engine.docker("restart", "-t", "0", "lived")
    engine.docker("stop", "-t", "0", "lived")
    engine.docker("rm", "lived")
    found = events.until("destroy")

    assert actions(found) == [
        *("create", "start", "pause", "unpause", "rename", "update", "top", "kill"),
        *("kill", "kill", "die", "stop", "start", "restart"),
        *("kill", "kill", "die", "stop", "destroy"),
    ]
    assert attributes(found, "rename")["oldName"] == "/lives"
    assert attributes(found, "kill")["signal"] == "28"
    assert attributes(found, "die")["exitCode"] == "137"
    assert attributes(found, "die")["execDuration"].isdecimal()
    assert all(event["Actor"]["Attributes"]["tier"] == "front" for event in found)
    assert all(event["Actor"]["Attributes"]["image"] == "busybox" for event in found)


def test_execs_and_streams(engine, events):
    run(engine, "busy", "cat", flags=("-it",))
    engine.docker("exec", "busy", "true")
    engine.docker("exec", "busy", "sh", "-c", "exit 3", check=False)
    engine.docker("exec", "busy", "nonsense", check=False)
    api = engine.api().api
    api.resize("busy", 20, 30)
    socket_ = api.attach_socket("busy", {"stdin": 1, "stream": 1, "stdout": 1})
    socket_._sock.sendall(b"\x10\x11")
    found = events.until("detach")

    told = actions(found)
    assert told[:7] == ["create", "start", "exec_create: true ", "exec_start: true ", "exec_die", *told[5:7]]
    assert told[5:8] == ["exec_create: sh -c exit 3", "exec_start: sh -c exit 3", "exec_die"]
    assert told[8:] == [
        *("exec_create: nonsense ", "exec_start: nonsense "),
        *("resize", "attach", "detach"),
    ]
    codes = [event["Actor"]["Attributes"]["exitCode"] for event in found if event["Action"] == "exec_die"]
    assert codes == ["0", "3"]
    ids = {event["Actor"]["Attributes"].get("execID") for event in found if "exec" in event["Action"]}
    assert len(ids) == 3
    assert attributes(found, "resize")["height"] == "20"
    assert attributes(found, "resize")["width"] == "30"


def test_copies_exports_and_commits(engine, events, tmp_path):
    run(engine, "copied", "sleep", "100")
    (tmp_path / "file").write_text("x")
    engine.docker("cp", tmp_path / "file", "copied:/tmp/file")
    engine.docker("cp", "copied:/tmp/file", tmp_path / "back")
    engine.docker("export", "-o", tmp_path / "tar", "copied")
    engine.docker("commit", "-m", "why", "copied", "made:of-it")
    engine.docker("rmi", "made:of-it")
    found = events.until("commit")

    told = actions(found)
    assert [name for name in told if name in ("extract-to-dir", "archive-path", "export", "commit")] == [
        *("extract-to-dir", "archive-path", "export", "commit")
    ]
    assert attributes(found, "commit")["comment"] == "why"


def test_health_checks_are_told_as_execs(engine, events):
    flags = ("--health-cmd", "exit 0", "--health-interval", "200ms")
    run(engine, "checked", "sleep", "100", flags=flags)
    found = events.until("health_status: healthy")

    told = actions(found)
    start = told.index("exec_create: /bin/sh -c exit 0")
    assert told[start : start + 4] == [
        *("exec_create: /bin/sh -c exit 0", "exec_start: /bin/sh -c exit 0"),
        *("exec_die", "health_status: healthy"),
    ]
    assert attributes(found, "exec_die")["exitCode"] == "0"


def test_a_lack_of_memory_is_told_while_the_container_runs(engine, events):
    hungry = "(dd if=/dev/zero of=/dev/null bs=300M count=1; true); sleep 100"
    run(engine, "hungry", "sh", "-c", hungry, flags=("--memory", "32m", "--memory-swap", "32m"))
    found = events.until("oom")

    assert "die" not in actions(found)
    state = json.loads(engine.docker("inspect", "hungry").stdout)[0]["State"]
    assert (state["Running"], state["OOMKilled"]) == (True, True)


def test_an_end_by_lack_of_memory_is_told_once_before_the_end(engine, events):
    words = ("dd", "if=/dev/zero", "of=/dev/null", "bs=300M", "count=1")
    run(engine, "starved", *words, flags=("--memory", "32m", "--memory-swap", "32m"))
    found = events.until("die")

    assert actions(found) == ["create", "start", "oom", "die"]
    assert attributes(found, "die")["exitCode"] == "137"


def test_prunes_tell_what_was_reclaimed(engine, events):
    run(engine, "pruned", "true")
    engine.docker("wait", "pruned")
    engine.docker("container", "prune", "-f")
    found = events.until("prune")

    assert attributes(found, "prune") == {"reclaimed": "0"}
    assert actions(found)[-2:] == ["destroy", "prune"]


def test_filters_and_times(engine, events):
    run(engine, "one", "true", flags=("--label", "tier=front"))
    run(engine, "other", "true", flags=("--label", "tier=back"))
    engine.docker("wait", "one", "other")
    events.until("die", container="other")

    assert set(actions(events.all(container="one"))) == {"create", "start", "die"}
    assert actions(events.all(event="die", label="tier=back")) == ["die"]
    assert events.all(type="volume") == []
    assert len(events.all(image="busybox")) >= 6
    lines = engine.api().api.events(
        since=int(time.time()) - 100,
        until=int(time.time()) + 1,
        decode=True,
        filters={"label!": "tier=front"},
    )
    names = {event["Actor"]["Attributes"].get("name") for event in lines}
    assert "other" in names
    assert "one" not in names
    for since in ("10m", "1h30m", f"{time.time() - 60:.6f}", "2020-01-02T03:04:05.5Z", "2020-01-02"):
        shown = engine.docker("events", "--since", since, "--until", "0s", "-f", "container=one").stdout
        assert len(shown.splitlines()) == 3, since


def test_many_events_are_kept(engine, events):
    api = engine.api().api
    made = api.create_container("busybox", "true", name="kept", network_disabled=True)
    for number in range(300):
        api.rename(made["Id"], f"kept-{number % 2}")
    found = events.until("rename", event="rename")

    assert len(found) == 300


@pytest.mark.parametrize(
    ("accept", "content_type", "start"),
    [
        ("", "application/json", b"{"),
        ("*/*", "application/json", b"{"),
        ("application/x-ndjson", "application/x-ndjson", b"{"),
        ("application/jsonl", "application/jsonl", b"{"),
        ("application/json-seq, application/json;q=0.5", "application/json-seq", b"\x1e{"),
    ],
)
def test_the_form_of_the_stream_is_negotiated(engine, accept, content_type, start):
    run(engine, "form", "true")
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(engine.socket))

    headers = {"Accept": accept} if accept else {}
    connection.request("GET", f"/v1.51/events?since=1&until={time.time()}", headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()

    assert answer.getheader("Content-Type") == content_type
    for line in body.splitlines():
        assert line.startswith(start)
        assert json.loads(line.removeprefix(b"\x1e"))["Action"]


def test_events_come_as_they_happen(engine):
    with subprocess.Popen(
        ["docker", "events", "-f", "container=live", "--format", "{{.Action}}"],
        env=engine.client_env(),
        stdout=subprocess.PIPE,
        text=True,
    ) as listener:
        while (
            "NEventsListener"
            in engine.docker("info", "--format", "NEventsListener {{.NEventsListener}}").stdout
        ):
            if engine.docker("info", "--format", "{{.NEventsListener}}").stdout.strip() != "0":
                break
        run(engine, "live", "true")
        seen = [listener.stdout.readline().strip() for _ in range(3)]
        listener.terminate()

    assert seen == ["create", "start", "die"]
