"""Builds against a real engine: what the docker client sees, what runs, what is left behind."""

import io
import json
import os
import re
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from support import images, orlopd

pytestmark = pytest.mark.system


@pytest.fixture
def site(tmp_path):
    """Writes files into a context directory."""

    def write(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text(content)
        return tmp_path

    return write


def build(engine, directory, *flags, check=True, tag="t"):
    return engine.docker("build", "-t", tag, *flags, directory, check=check, timeout=90)


def run(engine, *command, tag="t"):
    return engine.docker("run", "--rm", tag, *command).stdout


def inspect(engine, name="t"):
    return json.loads(engine.docker("image", "inspect", name).stdout)[0]


def layers(engine, name="t"):
    """The layers of an image, bottom first, as lists of names."""
    archive = tarfile.open(fileobj=io.BytesIO(saved(engine, name)))  # noqa: SIM115 - in memory
    manifest = json.load(archive.extractfile("manifest.json"))[0]
    return [tarfile.open(fileobj=archive.extractfile(layer)).getnames() for layer in manifest["Layers"]]


def saved(engine, name):
    return subprocess.run(
        ["docker", "save", name], env=engine.client_env(), check=True, capture_output=True
    ).stdout


def left_of_builds(engine):
    """Spooled contexts, run dirs of steps, snapshots: nothing of these may outlive a build."""
    places = (engine.data_root / "build", engine.exec_root / "builds", engine.data_root / "snapshots")
    return [str(path) for place in places if place.is_dir() for path in place.iterdir()]


def wait_until(true, timeout_s=5.0):
    deadline = time.monotonic() + timeout_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            data = None
            if isinstance(content, bytes):
                entry.size, data = len(content), io.BytesIO(content)
            else:
                entry.type, entry.linkname = content
            archive.addfile(entry, data)
    return buffer.getvalue()


def post_build(engine, body, query=""):
    """The raw answer of POST /build: status and lines."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(engine.socket))
        head = (
            f"POST /v1.45/build?{query} HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        sock.sendall(head.encode() + body)
        answer = b""
        while data := sock.recv(65536):
            answer += data
    return int(answer.split()[1]), answer.decode(errors="replace")


# --- instructions ---


def test_copy_and_add_put_files_where_and_whose_they_are_said_to_be(engine, site):
    archive = tar_of({"in/x": b"1"})
    directory = site(
        {
            "Dockerfile": """\
FROM busybox
RUN mkdir -p /etc && echo bob:x:777:778:::/bin/sh >> /etc/passwd && echo bob:x:778: >> /etc/group && mkdir /real && ln -s /real /alias && chmod 1777 /real
COPY --chown=bob:bob a /alias/deep/a
COPY --chmod=u=rwx,go= a b /many/
ADD in.tar /unpacked
COPY <<one <<'two' /here/
$PATH
one
$PATH
two
""",
            "a": "A",
            "b": "B",
            "in.tar": archive,
        }
    )

    build(engine, directory)

    shown = run(
        engine,
        "sh",
        "-c",
        "stat -c '%n %a %U' /real /real/deep /real/deep/a /many/* /unpacked/in/x; cat /here/*",
    )
    assert shown.splitlines() == [
        "/real 1777 root",
        "/real/deep 755 bob",
        "/real/deep/a 644 bob",
        "/many/a 700 root",
        "/many/b 700 root",
        "/unpacked/in/x 644 root",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "$PATH",
    ]


def test_run_has_shells_users_directories_and_heredocs(engine, site):
    directory = site(
        {
            "Dockerfile": """\
FROM busybox
RUN mkdir -p /etc && echo bob:x:777:778::/home/bob:/bin/sh >> /etc/passwd
USER bob
WORKDIR /home/bob/w
RUN id -u > who; pwd >> who
RUN ["/bin/touch", "exec form"]
RUN <<EOF
echo one > both
echo two >> both
EOF
RUN <<EOF
#!/bin/busybox sh
echo script > script
EOF
RUN cat <<A > three && cat <<B >> three
a
A
b
B
"""
        }
    )

    build(engine, directory)

    assert (
        run(engine, "cat", "who", "both", "script", "three") == "777\n/home/bob/w\none\ntwo\nscript\na\nb\n"
    )
    assert run(engine, "ls", "exec form") == "exec form\n"
    assert run(engine, "stat", "-c", "%u %a", ".") == "777 755\n"


def test_arguments_environment_and_configuration(engine, site):
    directory = site(
        {
            "Dockerfile": """\
ARG TAG=latest
FROM busybox:$TAG AS base
ARG WHO=nobody
ENV HELLO="hi $WHO"
RUN echo $HELLO from $TARGETARCH > /said
LABEL a=b
EXPOSE 80 90/udp
VOLUME /v
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s CMD true
ENTRYPOINT ["cat"]
CMD ["/said"]
""",
        }
    )

    build(engine, directory, "--build-arg", "WHO=me", "--label", "c=d")
    config = inspect(engine)["Config"]

    assert run(engine) == "hi me from\n"
    assert config["Labels"] == {"a": "b", "c": "d"}
    assert set(config["ExposedPorts"]) == {"80/tcp", "90/udp"}
    assert (config["StopSignal"], list(config["Volumes"])) == ("SIGINT", ["/v"])
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000}
    assert "HELLO=hi me" in config["Env"]


def test_triggers_run_in_the_next_image(engine, site):
    base = site(
        {"Dockerfile": "FROM busybox\nONBUILD COPY a /a\nONBUILD RUN echo fired >> /a\n", "a": "given\n"}
    )
    build(engine, base, tag="base:1")
    child = site({"Dockerfile": "FROM base:1\nRUN echo own >> /a\n"})

    shown = build(engine, child).stdout

    assert "# Executing 2 build triggers" in shown
    assert run(engine, "cat", "/a") == "given\nfired\nown\n"
    assert not inspect(engine)["Config"].get("OnBuild")


def test_deletions_and_replacements_show_in_later_steps(engine, site):
    directory = site(
        {
            "Dockerfile": """\
FROM busybox
RUN mkdir /d && echo 1 > /d/x && echo 2 > /d/y
RUN rm /d/x && rm -r /etc/network; mkdir -p /d/x
WORKDIR /d
WORKDIR /d
RUN rm -r /d/x && ls /d
"""
        }
    )

    build(engine, directory)

    assert run(engine, "sh", "-c", "ls /d; test -e /etc/network || echo gone") == "y\ngone\n"


def test_a_cached_build_tells_every_step_after_its_stages_were_pruned(fresh_engine, site):
    directory = site(
        {
            "Dockerfile": "FROM busybox AS made\nWORKDIR /w\nRUN echo 1 > one\n"
            "FROM busybox\nWORKDIR /x\nCOPY --from=made /w/one /\nCMD cat /one\n"
        }
    )
    build(fresh_engine, directory)
    fresh_engine.orlop("system", "prune", "--force")

    shown = build(fresh_engine, directory).stdout.splitlines()

    told = [line.partition(" : ")[0] for line in shown if line.startswith("Step ")]
    assert told == [f"Step {number}/7" for number in range(1, 8)]
    assert not [line for line in shown if "Running in" in line]


def test_parallel_stages_run_at_the_same_time(engine, site):
    now = "cut -d' ' -f1 /proc/uptime"
    stages = "".join(f"FROM busybox AS s{n}\nRUN ({now}; sleep 1.5; {now}) > /out\n" for n in range(3))
    copies = "".join(f"COPY --from=s{n} /out /{n}\n" for n in range(3))
    directory = site({"Dockerfile": f"{stages}FROM busybox\n{copies}RUN cat /0 /1 /2; echo end\n"})

    shown = build(engine, directory, "--no-cache").stdout

    times = [float(line) for line in shown.splitlines() if re.fullmatch(r"\d+\.\d+", line)]
    assert len(times) == 6
    assert max(times[::2]) < min(times[1::2]), "the last begins before the first ends"
    assert [line for line in shown.splitlines() if line.startswith("Step")] == sorted(
        (line for line in shown.splitlines() if line.startswith("Step")),
        key=lambda line: int(line.split("/")[0][5:]),
    )


def test_network_is_loopback_only_unless_the_host_s_is_asked_for(engine, site):
    directory = site(
        {
            "Dockerfile": "FROM busybox\nRUN ls /sys/class/net > /net; ip addr show lo | grep -c 127.0.0.1 >> /net\n"
        }
    )

    build(engine, directory)
    alone = run(engine, "cat", "/net").split()
    build(engine, directory, "--network=host")

    assert alone == ["lo", "1"]
    assert set(run(engine, "cat", "/net").split()[:-1]) == set(os.listdir("/sys/class/net"))


def test_limits_hosts_and_shared_memory_reach_the_step(engine, site):
    directory = site(
        {
            "Dockerfile": "FROM busybox\nRUN ulimit -n > /said; grep -c 'example.test' /etc/hosts >> /said; "
            "df -k /dev/shm | tail -1 | awk '{print $2}' >> /said\n"
        }
    )

    build(
        engine,
        directory,
        "--ulimit",
        "nofile=123:456",
        "--add-host",
        "example.test:1.2.3.4",
        "--shm-size",
        "8m",
    )

    assert run(engine, "cat", "/said").split() == ["123", "1", "8192"]


def test_what_the_engine_mounts_is_not_kept(engine, site):
    busybox = Path("/bin/busybox").read_bytes()
    directory = site(
        {
            "Dockerfile": "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\nRUN echo x > /made\n"
            'RUN ["/bin/sh", "-c", "echo y > /etc/own"]\n',
            "busybox": busybox,
        }
    )

    build(engine, directory)

    assert layers(engine)[1:] == [["made"], ["etc", "etc/own"]]


# --- cache ---


DOCKERFILE = (
    "FROM busybox\nWORKDIR /w\nCOPY a .\nRUN cat /proc/sys/kernel/random/uuid > random\nCMD cat random\n"
)


def test_a_cached_build_gives_the_same_image_after_a_restart(fresh_engine, site):
    directory = site({"Dockerfile": DOCKERFILE, "a": "1"})
    build(fresh_engine, directory)
    before = inspect(fresh_engine)["Id"]

    fresh_engine.restart()
    shown = build(fresh_engine, directory).stdout

    assert shown.count("Using cache") == 4
    assert inspect(fresh_engine)["Id"] == before


def test_time_and_owner_of_files_do_not_matter_mode_and_content_do(engine, site):
    directory = site({"Dockerfile": DOCKERFILE, "a": "1"})
    build(engine, directory)
    first = inspect(engine)["Id"]
    os.utime(directory / "a", (1, 1))
    os.chown(directory / "a", 12, 34)

    build(engine, directory)
    assert inspect(engine)["Id"] == first

    (directory / "a").chmod(0o755)
    build(engine, directory)
    assert inspect(engine)["Id"] != first


def test_files_are_reproducible_bit_by_bit(fresh_engine, engine, site):
    text = "FROM busybox\nWORKDIR /w/x\nCOPY a b /d/\nADD t.tar /t\n"
    directory = site({"Dockerfile": text, "a": "1", "b": "2", "t.tar": tar_of({"x": b"1"})})

    found = []
    for one in (engine, fresh_engine):
        build(one, directory)
        found.append(inspect(one)["RootFS"]["Layers"])

    assert found[0] == found[1]


def test_source_date_epoch_makes_whole_images_reproducible(fresh_engine, engine, site):
    directory = site({"Dockerfile": "FROM busybox\nCOPY a /\nENV A=b\n", "a": "1"})

    for one in (engine, fresh_engine):
        build(one, directory, "--build-arg", "SOURCE_DATE_EPOCH=1700000000")

    assert inspect(engine)["Id"] == inspect(fresh_engine)["Id"]
    assert inspect(engine)["Created"] == "2023-11-14T22:13:20Z"


def test_pruning_the_cache_frees_it_and_images_stay(fresh_engine, site):
    directory = site({"Dockerfile": DOCKERFILE, "a": "1"})
    build(fresh_engine, directory)

    report = json.loads(post(fresh_engine, "/v1.45/build/prune?all=1"))

    assert len(report["CachesDeleted"]) == 3
    assert json.loads(get(fresh_engine, "/v1.45/system/df"))["BuildCache"] == []
    assert run(fresh_engine).count("-") == 4
    assert "Using cache" not in build(fresh_engine, directory).stdout.partition("RUN")[2]


def test_the_cache_is_listed(fresh_engine, site):
    build(fresh_engine, site({"Dockerfile": DOCKERFILE, "a": "1"}))

    cache = json.loads(get(fresh_engine, "/v1.45/system/df"))["BuildCache"]

    assert sorted(item["Description"] for item in cache) == [
        "COPY a .",
        "RUN cat /proc/sys/kernel/random/uuid > random",
        "WORKDIR /w",
    ]
    assert all(item["Type"] == "regular" and item["Shared"] for item in cache)


def test_an_image_with_the_history_of_a_build_is_no_cache_parent(fresh_engine, site):
    """CVE-2024-24557: what was loaded or tagged never passes for a cached step."""
    directory = site({"Dockerfile": "FROM busybox\nRUN echo good > /x\n"})
    build(fresh_engine, directory)
    genuine = inspect(fresh_engine)
    history = saved(fresh_engine, "t")
    forged = forge(history, b"evil")
    fresh_engine.docker("rmi", "t")
    post(fresh_engine, "/v1.45/build/prune?all=1")
    subprocess.run(
        ["docker", "load"], input=forged, env=fresh_engine.client_env(), check=True, capture_output=True
    )

    shown = build(fresh_engine, directory).stdout

    assert "Using cache" not in shown
    assert run(fresh_engine, "cat", "/x") == "good\n"
    assert genuine["Id"] != ""


def forge(archive, content):
    """The same image with another top layer: equal history, other files."""
    import hashlib

    source = tarfile.open(fileobj=io.BytesIO(archive))  # noqa: SIM115 - in memory
    manifest = json.load(source.extractfile("manifest.json"))[0]
    config = json.load(source.extractfile(manifest["Config"]))
    layer = tar_of({"x": content})
    config["rootfs"]["diff_ids"][-1] = "sha256:" + hashlib.sha256(layer).hexdigest()
    bottom = source.extractfile(manifest["Layers"][0]).read()
    listed = [{"Config": "c.json", "RepoTags": ["forged:1"], "Layers": ["0.tar", "1.tar"]}]
    return tar_of(
        {
            "manifest.json": json.dumps(listed).encode(),
            "c.json": json.dumps(config).encode(),
            "0.tar": bottom,
            "1.tar": layer,
        }
    )


def test_cache_from_narrows_down_what_counts(engine, site):
    directory = site({"Dockerfile": "FROM busybox\nENV A=b\nRUN touch /x\nRUN touch /y\n"})
    build(engine, directory)

    from_image = build(engine, directory, "--cache-from", "t").stdout
    from_nothing = build(engine, directory, "--cache-from", "nosuch:1").stdout

    assert (from_image.count("Using cache"), from_nothing.count("Using cache")) == (3, 0)


def test_a_run_of_proxies_is_cached_whatever_their_value(engine, site):
    directory = site({"Dockerfile": "FROM busybox\nRUN env | grep -i proxy | sort > /p\n"})
    build(engine, directory, "--build-arg", "HTTP_PROXY=http://one")

    shown = build(engine, directory, "--build-arg", "HTTP_PROXY=http://two").stdout

    assert "Using cache" in shown
    assert "http_proxy=http://one" in run(engine, "cat", "/p")
    assert "proxy" not in json.dumps(inspect(engine)["Config"]).lower()


# --- the end of things ---


def test_a_failing_step_leaves_nothing(fresh_engine, site):
    directory = site({"Dockerfile": "FROM busybox\nRUN echo x > /x; exit 3\n"})

    done = build(fresh_engine, directory, check=False)

    assert "returned a non-zero code: 3" in done.stderr
    assert left_of_builds(fresh_engine) == []
    assert fresh_engine.docker("images", "-aq").stdout.count("\n") == 1


def test_a_client_that_goes_away_stops_the_build_within_two_seconds(fresh_engine, site):
    directory = site({"Dockerfile": "FROM busybox\nRUN echo begun; sleep 4321\n"})
    client = fresh_engine.popen("build", directory)
    while b"begun" not in client.stdout.readline():
        continue

    client.kill()
    client.communicate()

    assert wait_until(lambda: left_of_builds(fresh_engine) == [] and not processes("sleep 4321"), 2)


def test_a_build_is_cancelled_by_its_id(fresh_engine):
    body = tar_of({"Dockerfile": b"FROM busybox\nRUN sleep 4322\n"})
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(fresh_engine.socket))
        head = f"POST /v1.45/build?buildid=b1 HTTP/1.1\r\nHost: d\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode() + body)
        answer = b""
        while b"Running in" not in answer:
            answer += sock.recv(65536)

        post(fresh_engine, "/v1.45/build/cancel?id=b1")
        while data := sock.recv(65536):
            answer += data

    assert b"the build was cancelled" in answer
    assert wait_until(lambda: left_of_builds(fresh_engine) == [])


def test_an_engine_killed_in_a_step_leaves_nothing_after_its_restart(fresh_engine, site):
    directory = site({"Dockerfile": "FROM busybox\nRUN echo begun; sleep 4323\n"})
    client = fresh_engine.popen("build", directory)
    while b"begun" not in client.stdout.readline():
        continue

    fresh_engine.kill()
    client.communicate()
    fresh_engine.start()

    assert wait_until(lambda: not processes("sleep 4323"))
    places = (fresh_engine.data_root / "build", fresh_engine.exec_root / "builds")
    assert [path for place in places if place.is_dir() for path in place.iterdir()] == []


@pytest.mark.parametrize(
    "failpoint", ["build.step.before-commit", "build.cache.before-row", "build.export.before-image"]
)
def test_an_error_at_a_failpoint_fails_the_build_and_the_next_one_succeeds(site, failpoint):
    directory = site({"Dockerfile": DOCKERFILE, "a": "1"})
    with orlopd.Orlopd(environ={"ORLOP_FAILPOINTS": f"{failpoint}=error@1"}) as engine:
        engine.docker("load", input=images.busybox_archive("busybox:latest"))
        done = build(engine, directory, check=False)
        assert done.returncode != 0
        assert left_of_builds(engine) == []

        build(engine, directory)
        assert run(engine).count("-") == 4


def processes(command):
    found = subprocess.run(["pgrep", "-f", f"^{command}$"], capture_output=True, check=False)
    return found.stdout.split()


# --- hostile requests ---


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"../evil": b"x", "Dockerfile": b"FROM scratch"}, "has `..` in its path"),
        ({"Dockerfile": (tarfile.SYMTYPE, "/etc/passwd")}, "Cannot locate specified Dockerfile"),
        ({"Dockerfile": (tarfile.FIFOTYPE, "")}, "not a regular file"),
        ({"h": (tarfile.LNKTYPE, "/etc/passwd"), "Dockerfile": b"FROM scratch"}, "not a file"),
        ({"l": (tarfile.SYMTYPE, "/etc"), "l/x": b"", "Dockerfile": b"FROM scratch"}, "not a directory"),
        (
            {"Dockerfile": b"FROM scratch\nCOPY l /x\n", "l": (tarfile.SYMTYPE, "/etc/passwd")},
            "file not found",
        ),
        ({"Dockerfile": b"FROM scratch\nCOPY l /x\n", "l": (tarfile.SYMTYPE, "l")}, "too many levels"),
        ({"Dockerfile": b"FROM scratch\nCOPY ../../etc/passwd /x\n"}, "file not found"),
        (
            {"Dockerfile": b"FROM scratch\nADD a /x\n", "a": tar_of({"ok": b"", "../../x": b""})},
            "`..` in its path",
        ),
        ({"Dockerfile": b"FROM scratch\nRUN --security=insecure x\n"}, "insecure is not allowed"),
        ({"Dockerfile": b"FROM scratch\nRUN --network=host x\n"}, "network.host is not allowed"),
        ({"Dockerfile": b"FROM scratch\nARG A=aaaaaaaa\n" + b"ENV A=$A$A$A$A$A$A$A$A\n" * 20}, "longer than"),
        ({"Dockerfile": b"\xff\xfe"}, "not valid UTF-8"),
        ({}, "Cannot locate specified Dockerfile"),
    ],
)
def test_hostile_contexts_get_an_answer_and_leave_nothing(engine, files, text):
    status, answer = post_build(engine, tar_of(files))

    assert text in answer
    assert status in (200, 400)
    assert "Traceback" not in answer
    assert left_of_builds(engine) == []


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("platform=foobar", "unknown operating system"),
        ("platform=linux/s390x", "cannot be built here"),
        ("t=UPPER", "must be lowercase"),
        ("remote=http://127.0.0.1/x.tar", "remote context is not supported"),
        ("version=2", "BuildKit is not served"),
        ("networkmode=nosuch", "network nosuch not found"),
        ("buildargs={", "error reading build buildargs"),
        ("buildargs=[1]", "expected an object of strings"),
        ("labels={%22a%22:1}", "expected an object of strings"),
        ("ulimits=[{}]", "error reading ulimit settings"),
        ("extrahosts=nocolon", "bad format for add-host"),
        ("target=nosuch", "failed to reach build target nosuch in Dockerfile"),
        ("dockerfile=none", "Cannot locate specified Dockerfile: none"),
        ("buildargs={%22SOURCE_DATE_EPOCH%22:%22x%22}", "invalid SOURCE_DATE_EPOCH"),
    ],
)
def test_bad_parameters_are_refused(engine, query, text):
    status, answer = post_build(engine, tar_of({"Dockerfile": b"FROM scratch\nLABEL a=b\n"}), query)

    assert status in (400, 404)
    assert text in answer


def test_a_body_that_is_no_tar_is_refused(engine):
    for body in (b"garbage" * 1000, b"\x1f\x8b" + b"x" * 100, b""):
        status, _ = post_build(engine, body)

        assert status == 400
    assert left_of_builds(engine) == []


def test_a_step_that_floods_a_slow_client_is_slowed_down(engine):
    body = tar_of({"Dockerfile": b"FROM busybox\nRUN yes | head -c 50000000\n"})
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(engine.socket))
        head = f"POST /v1.45/build?nocache=1 HTTP/1.1\r\nHost: d\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode() + body)
        time.sleep(1)
        held = resident_kib(engine.pid)
        total = 0
        while data := sock.recv(1 << 20):
            total += len(data)

    assert held < 200_000
    assert total > 50_000_000


def resident_kib(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def post(engine, path):
    return exchange(engine, "POST", path)


def get(engine, path):
    return exchange(engine, "GET", path)


def exchange(engine, method, path):
    done = subprocess.run(
        ["curl", "-s", "-X", method, "--unix-socket", engine.socket, f"http://d{path}"],
        capture_output=True,
        check=True,
    )
    return done.stdout
