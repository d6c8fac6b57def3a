"""What an engine tells of itself: metrics, traces, and its own log, read by those who collect them."""

import http.client
import http.server
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.request

import pytest

from orlop.runtime import rundir
from support import images, orlopd

pytestmark = pytest.mark.system

_SAMPLE = re.compile(r'([a-z_]+)(\{(?:[a-z_]+="(?:[^"\\\n]|\\[\\n"])*",?)*\})? (\S+)\Z')


class Collector(http.server.ThreadingHTTPServer):
    """Takes spans as OTLP collectors do."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Taker)
        self.spans = []
        self.resources = []
        self.paths = set()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def wait_for(self, *names, trace=""):
        """The newest span of each name, of one trace or of any."""
        return wait_until(lambda: self._newest(names, trace), f"spans {names}")

    def _newest(self, names, trace):
        found = {span["name"]: span for span in tuple(self.spans) if trace in span["traceId"]}
        return [found[name] for name in names] if all(name in found for name in names) else None


class Taker(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.paths.add((self.path, self.headers["Content-Type"]))
        for resource in body["resourceSpans"]:
            self.server.resources.append(attributes(resource["resource"]))
            for scope in resource["scopeSpans"]:
                self.server.spans += scope["spans"]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def attributes(thing):
    return {item["key"]: next(iter(item["value"].values())) for item in thing["attributes"]}


def wait_until(look, what, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def collector():
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def engine(collector, tmp_path_factory):
    """An engine that tells everything it can."""
    config = tmp_path_factory.mktemp("daemon") / "daemon.json"
    config.write_text('{"log-level": "info"}')
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}"}
    flags = ("--metrics-addr", "127.0.0.1:0", "--log-format", "json", "--config-file", str(config))
    with orlopd.Orlopd(*flags, environ=environ) as running:
        running.config = config
        running.docker("load", input=images.busybox_archive("busybox:latest"))
        yield running


def records(engine):
    """The engine's log: every line is one object."""
    return [json.loads(line) for line in engine.log().splitlines()]


def metrics_address(engine):
    return [record["address"] for record in records(engine) if record["msg"] == "metrics are served"][-1]


def scrape(engine):
    """{(name, labels): value}; fails on what a scraper would not take."""
    with urllib.request.urlopen(f"http://{metrics_address(engine)}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith("# "):
            assert re.match(r"# (HELP|TYPE) [a-z_]+ .", line), line
            continue
        name, labels, value = _SAMPLE.match(line).groups()
        assert (name, labels) not in found, line
        found[name, labels or ""] = float(value)
    return found


def request(engine, method, path, **headers):
    """One request on the engine's socket; its status."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(engine.socket))
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


# --- metrics ---


def test_prometheus_reads_the_engine_and_its_containers(engine):
    before = scrape(engine)
    one = engine.docker(
        "run", "-d", "--name", "scraped", "--memory", "64m", "--health-cmd", "true", "--health-interval", "200ms",
        "busybox", "sleep", "60",
    ).stdout.strip()  # fmt: skip
    engine.docker("run", "--name", "failed", "busybox", "sh", "-c", "exit 7", check=False)
    wait_until(lambda: "healthy" in engine.docker("ps").stdout, "health")
    other = engine.docker("inspect", "-f", "{{.Id}}", "failed").stdout.strip()
    after = wait_until(
        lambda: (seen := scrape(engine)).get(("orlop_container_up", labels(one, "scraped"))) and seen,
        "fresh scrape",
    )

    own = labels(one, "scraped")
    assert after["orlop_container_memory_limit_bytes", own] == 64 << 20
    assert after["orlop_container_pids", own] >= 1
    assert after["orlop_container_cpu_seconds_total", own] > 0
    assert after["orlop_container_stats_up", own] == 1
    assert after["orlop_container_health", own[:-1] + ',status="healthy"}'] == 1
    assert after["orlop_container_exit_code", labels(other, "failed")] == 7
    assert after["engine_daemon_container_states_containers", '{state="running"}'] == 1
    assert after["engine_daemon_container_states_containers", '{state="stopped"}'] == 1
    assert after["engine_daemon_health_checks_total", ""] >= 1
    assert after["engine_daemon_events_total", ""] > before["engine_daemon_events_total", ""]
    started = ("engine_daemon_container_actions_seconds_count", '{action="start"}')
    assert after[started] == before[started] + 2
    (info,) = [labels for name, labels in after if name == "engine_daemon_engine_info"]
    assert 'graphdriver="erofs"' in info
    engine.docker("rm", "-f", "scraped", "failed")


def labels(container, name):
    return f'{{id="{container[:12]}",name="{name}",image="busybox"}}'


def test_a_wedged_container_costs_a_scrape_nothing_but_its_own_numbers(engine):
    names = ("wedged", "well")
    ids = {
        name: engine.docker("run", "-d", "--name", name, "busybox", "sleep", "60").stdout.strip()
        for name in names
    }
    record = rundir.read_record(str(engine.exec_root / "containers" / ids["wedged"]))

    os.kill(record.supervisor_pid, signal.SIGSTOP)
    try:
        seen = wait_until(
            lambda: (
                (found := scrape(engine)).get(("orlop_container_stats_up", labels(ids["wedged"], "wedged")))
                == 0
                and found
            ),
            "scrape without the wedged one",
        )
    finally:
        os.kill(record.supervisor_pid, signal.SIGCONT)

    assert seen["orlop_container_up", labels(ids["wedged"], "wedged")] == 1
    assert ("orlop_container_pids", labels(ids["wedged"], "wedged")) not in seen
    assert seen["orlop_container_pids", labels(ids["well"], "well")] == 1
    engine.docker("rm", "-f", *names)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 404),
        ("GET", "/containers/json", {}, 404),
        ("POST", "/metrics", {}, 405),
        ("HEAD", "/metrics", {}, 200),
        ("GET", "/metrics", {"Host": "evil.example"}, 403),
        ("GET", "/metrics", {"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_the_metrics_port_answers_nothing_else(engine, method, path, headers, status):
    connection = http.client.HTTPConnection(metrics_address(engine), timeout=10)
    connection.request(method, path, headers=headers)

    assert connection.getresponse().status == status
    connection.close()


# --- traces ---


def test_a_request_belongs_to_the_trace_of_its_client(engine, collector):
    container = engine.docker("create", "--name", "traced", "busybox", "true").stdout.strip()
    trace, parent = "ab" * 16, "cd" * 8

    status = request(engine, "POST", "/containers/traced/start", traceparent=f"00-{trace}-{parent}-01")
    asked, start, supervisor = collector.wait_for(
        "ContainerStart", "container.start", "container.supervisor", trace=trace
    )

    assert status == 204
    assert (asked["parentSpanId"], asked["kind"]) == (parent, 2)
    assert start["parentSpanId"] == asked["spanId"]
    assert supervisor["parentSpanId"] == start["spanId"]
    assert attributes(start)["container.id"] == container
    assert attributes(asked)["http.response.status_code"] == "204"
    assert collector.paths == {("/v1/traces", "application/json")}
    assert collector.resources[0]["service.name"] == "orlopd"
    engine.docker("rm", "-f", "traced")


def test_the_steps_of_a_build_are_spans_of_it(engine, collector, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo traced\n")

    engine.docker("build", "--no-cache", str(tmp_path))
    (build,) = collector.wait_for("ImageBuild")

    steps = [span for span in collector.spans if span["name"] == "build.step"]
    assert [span["parentSpanId"] for span in steps] == [build["spanId"]]
    assert "echo traced" in attributes(steps[0])["step"]


def test_layers_that_are_pushed_and_pulled_are_spans(engine, collector, docker_registry):
    name = f"{docker_registry.address}/traced:1"
    engine.docker("load", input=images.busybox_archive(name, marker="traced"))

    engine.docker("push", name)
    push, sent = collector.wait_for("ImagePush", "push.layer")
    engine.docker("rmi", name)
    engine.docker("pull", name)
    pull, received = collector.wait_for("ImageCreate", "pull.layer")

    assert sent["parentSpanId"] == push["spanId"]
    assert attributes(sent)["digest"].startswith("sha256:")
    assert (
        int(pull["startTimeUnixNano"]) <= int(received["startTimeUnixNano"]) <= int(pull["endTimeUnixNano"])
    )
    engine.docker("rmi", name)


# --- the engine's own log ---


def test_every_line_is_an_object_and_the_level_changes_by_sighup(engine):
    assert not [record for record in records(engine) if record["level"] == "debug"]

    engine.config.write_text('{"log-level": "debug"}')
    engine.process.send_signal(signal.SIGHUP)
    wait_until(lambda: records(engine)[-1]["msg"] == "configuration reloaded", "reload")
    asked = ("events", "--since", "1h", "--until", "0s", "--filter", "type=daemon")  # until: whole seconds
    wait_until(
        lambda: re.search(r" daemon reload \S+ \(debug=true, name=", engine.docker(*asked).stdout), "event"
    )
    engine.docker("ps")
    asked = [record for record in records(engine) if record.get("operation") == "ContainerList"]

    assert asked[0]["level"] == "debug"
    assert asked[0]["status"] == 200
    assert {"time", "level", "msg"} <= set(asked[0])
    engine.config.write_text('{"log-level": "nonsense"}')
    engine.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "cannot reload" in records(engine)[-1]["msg"], "refusal")
    assert engine.docker("ps").returncode == 0
