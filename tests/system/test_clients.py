"""The same work through docker-py and through our own client."""

import io
import json
import re
import socket
import tarfile
import threading
import time

import docker.errors
import pytest

from support import images
from support.terminal import Terminal

DOCKERFILE = "FROM busybox\nLABEL made=here\nRUN echo built > /built\nCMD cat /built\n"


@pytest.fixture
def api(engine):
    return engine.api()


# docker-py: containers


def test_run_returns_the_output(api):
    assert api.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"
    assert api.containers.list(all=True) == []


def test_run_raises_the_exit_code_and_what_was_said(api):
    with pytest.raises(docker.errors.ContainerError) as caught:
        api.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)

    assert caught.value.exit_status == 3
    assert caught.value.stderr == b"bad\n"


def test_run_of_a_missing_program_is_the_error_that_clients_know(api):
    with pytest.raises(docker.errors.APIError) as caught:
        api.containers.run("busybox", ["nowhere"])

    assert caught.value.status_code == 400
    assert 'exec: "nowhere": executable file not found in $PATH' in caught.value.explanation


def test_logs_are_streamed_while_they_come(api):
    container = api.containers.run(
        "busybox", ["sh", "-c", "echo one; read x; echo two"], stdin_open=True, detach=True
    )
    stdin = container.attach_socket(params={"stdin": 1, "stream": 1})

    stream = container.logs(stream=True, follow=True)
    first = next(stream)
    stdin._sock.sendall(b"\n")
    rest = b"".join(stream)

    stdin.close()
    assert (first, rest) == (b"one\n", b"two\n")


def test_logs_can_be_cut_and_stamped(api):
    container = api.containers.run("busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; done"], detach=True)
    container.wait()

    assert container.logs(tail=2) == b"2\n3\n"
    assert re.fullmatch(
        rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z 3\n", container.logs(tail=1, timestamps=True)
    )


def test_attach_sees_the_output_from_the_first_byte(api):
    container = api.containers.create("busybox", ["sh", "-c", "echo out; echo err >&2"])

    stream = container.attach(stream=True, demux=True)
    container.start()
    seen = list(stream)

    assert b"".join(out for out, _ in seen if out) == b"out\n"
    assert b"".join(err for _, err in seen if err) == b"err\n"


def test_attach_socket_is_a_conversation(api):
    container = api.containers.create("busybox", ["cat"], stdin_open=True)
    talk = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()

    talk._sock.sendall(b"ping\n")
    heard = talk.read(8 + 5)
    talk._sock.shutdown(socket.SHUT_WR)

    assert heard == b"\x01\x00\x00\x00\x00\x00\x00\x05ping\n"
    container.stop(timeout=1)
    talk.close()


def test_wait_answers_when_the_container_ends(api):
    container = api.containers.run("busybox", ["sh", "-c", "exit 42"], detach=True)

    assert container.wait() == {"StatusCode": 42}


def test_a_wait_with_a_timeout_gives_up(api):
    container = api.containers.run("busybox", ["sleep", "60"], detach=True)

    with pytest.raises(Exception, match=r"timed out"):
        container.wait(timeout=0.2)


def test_stop_kill_pause_restart_and_remove(api):
    container = api.containers.run(
        "busybox", ["sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done"], detach=True
    )

    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.stop()
    container.reload()
    assert (container.status, container.attrs["State"]["ExitCode"]) == ("exited", 9)
    container.restart()
    container.kill()
    assert container.wait()["StatusCode"] == 137
    container.rename("renamed")
    api.containers.get("renamed").remove()
    assert api.containers.list(all=True) == []


def test_exec_gives_output_and_exit_code(api):
    container = api.containers.run("busybox", ["sleep", "60"], detach=True)

    code, (out, err) = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 6"], demux=True)

    assert (code, out, err) == (6, b"out\n", b"err\n")


def test_files_are_copied_in_and_out(api):
    container = api.containers.create("busybox", ["cat", "/tmp/in"])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("in")
        entry.size = 7
        tar.addfile(entry, io.BytesIO(b"carried"))

    container.put_archive("/tmp", buffer.getvalue())
    container.start()
    container.wait()
    chunks, status = container.get_archive("/tmp/in")

    assert container.logs() == b"carried"
    assert status["name"] == "in"
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        assert tar.extractfile("in").read() == b"carried"


def test_top_and_stats_of_a_running_container(api):
    container = api.containers.run("busybox", ["sleep", "60"], detach=True, mem_limit="64m")

    processes = container.top()
    stats = container.stats(stream=False)

    assert "CMD" in processes["Titles"]
    assert processes["Processes"][0][-1] == "sleep 60"
    assert stats["pids_stats"]["current"] == 1
    assert stats["memory_stats"]["limit"] == 64 << 20


def test_info_tells_how_layers_are_seen_and_where_they_lie(api):
    rows = dict(api.info()["DriverStatus"])

    assert rows["Layers"].startswith(("EROFS", "directories"))
    assert rows["Backing Filesystem"] not in ("", "unknown")


# docker-py: images, events


def test_build_returns_the_image_and_its_log(api):
    image, log = api.images.build(fileobj=io.BytesIO(DOCKERFILE.encode()), tag="built:py")

    assert image.tags == ["built:py"]
    assert image.labels == {"made": "here"}
    assert any(line.get("stream", "").startswith("Step 1/4 : FROM busybox") for line in log)
    assert api.containers.run("built:py", remove=True) == b"built\n"


def test_a_failed_build_raises_with_its_log(api):
    with pytest.raises(docker.errors.BuildError) as caught:
        api.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 3\n"))

    assert str(caught.value) == "The command '/bin/sh -c exit 3' returned a non-zero code: 3"


def test_save_remove_and_load(api):
    image, _ = api.images.build(fileobj=io.BytesIO(DOCKERFILE.encode()), tag="saved:1")

    data = b"".join(image.save(named=True))
    api.images.remove("saved:1")
    with pytest.raises(docker.errors.ImageNotFound):
        api.images.get("saved:1")
    (loaded,) = api.images.load(data)

    assert loaded.id == image.id
    assert loaded.tags == ["saved:1"]


def test_push_and_pull(api, docker_registry):
    image, _ = api.images.build(fileobj=io.BytesIO(DOCKERFILE.encode()))
    repository = f"{docker_registry.address}/py/web"
    image.tag(repository, "v1")

    lines = [json.loads(line) for line in api.images.push(repository, "v1").splitlines()]
    api.images.remove(image.id, force=True)
    pulled = api.images.pull(repository, "v1")

    digest = docker_registry.digest("py/web", "v1")
    assert [line["aux"]["Digest"] for line in lines if "aux" in line] == [digest]
    assert pulled.id == image.id
    assert pulled.attrs["RepoDigests"] == [f"{repository}@{digest}"]


def test_images_are_listed_and_filtered(api):
    image, _ = api.images.build(fileobj=io.BytesIO(DOCKERFILE.encode()), tag="listed:1")

    assert image in api.images.list()
    assert api.images.list(filters={"label": "made=here"}) == [image]
    assert api.images.list("listed") == [image]
    assert api.images.list(filters={"label": "made=there"}) == []


def test_a_missing_image_is_not_found(api):
    with pytest.raises(docker.errors.ImageNotFound):
        api.images.get("nowhere")


def test_events_tell_a_containers_life(api):
    seen = []
    stream = api.events(decode=True, filters={"type": "container"})

    def listen():
        for event in stream:
            seen.append(event["Action"])
            if event["Action"] == "destroy":
                break

    listener = threading.Thread(target=listen)
    listener.start()
    api.containers.run("busybox", ["true"], remove=True)
    listener.join(20)
    stream.close()

    assert seen == ["create", "start", "die", "destroy"]


def test_df_counts_what_there_is(api):
    usage = api.df()

    assert len(usage["Images"]) == 1
    assert usage["LayersSize"] > 500_000


# our own client


def test_orlop_builds_and_runs(engine, tmp_path):
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)

    built = engine.orlop("build", "-t", "own", tmp_path)
    shown = engine.orlop("run", "--rm", "own")

    assert "Successfully tagged own:latest" in built.stdout
    assert shown.stdout == "built\n"


def test_orlop_lists_as_docker_lists(engine):
    engine.orlop("run", "-d", "--name", "here", "busybox", "sleep", "60")

    commands = (
        *(["ps"], ["ps", "-a", "--no-trunc"], ["ps", "-as"], ["ps", "-q"], ["ps", "--format", "json"]),
        *(["images"], ["images", "--digests"], ["images", "--format", "json"], ["history", "busybox"]),
        *(["system", "df"], ["system", "df", "-v"]),
    )
    for command in commands:
        ours = engine.orlop(*command).stdout.partition("\nImage layers:")[0]  # a table that docker has not
        assert shape(ours) == shape(engine.docker(*command).stdout)


def test_orlop_inspect_is_docker_inspect(engine):
    engine.orlop("create", "--name", "looked-at", "-e", "A=b", "-v", "/data", "busybox", "true")

    for name in ("looked-at", "busybox"):
        assert json.loads(engine.orlop("inspect", name).stdout) == json.loads(
            engine.docker("inspect", name).stdout
        )
    assert engine.orlop("inspect", "-f", "{{.Config.Image}}", "looked-at").stdout == "busybox\n"


@pytest.mark.parametrize(
    ("command", "code"), [(["sh", "-c", "exit 3"], 3), (["nowhere"], 127), (["/etc/passwd"], 126)]
)
def test_orlop_run_ends_with_the_programs_exit_code(engine, command, code):
    assert engine.orlop("run", "--rm", "busybox", *command, check=False).returncode == code


def test_orlop_start_stop_kill_wait_and_rm(engine):
    engine.orlop(
        "create", "--name", "life", "busybox", "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done"
    )

    assert engine.orlop("start", "life").stdout == "life\n"
    assert engine.orlop("stop", "life").stdout == "life\n"
    assert engine.orlop("wait", "life").stdout == "5\n"
    engine.orlop("start", "life")
    engine.orlop("kill", "-s", "KILL", "life")
    assert engine.orlop("wait", "life").stdout == "137\n"
    assert engine.orlop("rm", "life").stdout == "life\n"
    assert engine.orlop("ps", "-aq").stdout == ""


def test_orlop_logs_keep_streams_apart(engine):
    engine.orlop("run", "--name", "said", "busybox", "sh", "-c", "echo out; echo err >&2")

    shown = engine.orlop("logs", "said")

    assert (shown.stdout, shown.stderr) == ("out\n", "err\n")


def test_orlop_at_a_terminal(engine):
    import sys

    command = [sys.executable, "-m", "orlop.cli.main", "-H", engine.address, "run", "-it", "--rm", "busybox"]
    with Terminal(command, engine.client_env(), rows=30, columns=90) as terminal:
        terminal.expect("/ # ")
        terminal.type("stty size; exit 8\n")
        terminal.expect("30 90\r\n")
        code = terminal.wait()

    assert code == 8


def test_orlop_stdin_reaches_the_program(engine):
    shown = engine.orlop("run", "--rm", "-i", "busybox", "cat", input="through\n")

    assert shown.stdout == "through\n"


def test_orlop_save_and_load(engine):
    data = engine.orlop("save", "busybox", input=b"").stdout
    loaded = engine.orlop("load", input=data).stdout

    assert loaded == b"Loaded image: busybox:latest\n"


def test_orlop_tag_push_pull_and_rmi(engine, docker_registry):
    name = f"{docker_registry.address}/own/box:2"
    data = images.busybox_archive("box:1", marker="own")
    engine.orlop("load", input=data)

    engine.orlop("tag", "box:1", name)
    pushed = engine.orlop("push", name).stdout
    engine.orlop("rmi", "box:1", name)
    pulled = engine.orlop("pull", name).stdout

    digest = docker_registry.digest("own/box", "2")
    assert f"2: digest: {digest} size: " in pushed
    assert f"Digest: {digest}" in pulled
    assert engine.orlop("run", "--rm", name, "cat", "/etc/marker").stdout == "own"


def test_orlop_info_version_system_and_events(engine):
    engine.orlop("run", "--name", "told", "busybox", "true")

    assert "Server Version" in engine.orlop("info").stdout
    assert "API version" in engine.orlop("version").stdout
    assert engine.orlop("system", "df").stdout.startswith("TYPE ")
    now = f"{time.time():.6f}"
    shown = engine.orlop("events", "--since", "0", "--until", now, "--filter", "container=told").stdout
    assert [line.split()[2] for line in shown.splitlines()] == ["create", "attach", "start", "die"]


def test_orlop_attach_follows_a_running_container(engine):
    engine.orlop("run", "-d", "--name", "talks", "-i", "busybox", "sh", "-c", "read x; echo got $x")

    shown = engine.orlop("attach", "talks", input="word\n").stdout

    assert shown == "got word\n"


def test_orlop_tells_errors_as_docker_tells_them(engine):
    ours = engine.orlop("start", "nobody", check=False)
    theirs = engine.docker("start", "nobody", check=False)

    assert ours.returncode == theirs.returncode == 1
    assert "No such container: nobody" in ours.stderr


def shape(text):
    """A table without what passes from one second to the next."""
    squeezed = re.sub(" +", " ", text).replace(" \n", "\n")
    return re.sub(r"(Less than a second|About a minute|\d+ (second|minute)s?)( ago)?", "TIME", squeezed)
