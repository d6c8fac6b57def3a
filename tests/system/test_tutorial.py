"""The classic tutorial, line by line, with the unmodified docker client."""

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from support import images
from support.contexts import build_web, image_id, write
from support.terminal import Terminal

SHORT_ID = re.compile(r"[0-9a-f]{12}")


@pytest.fixture
def hello(tmp_path):
    """A context whose image needs no system at all, and what it prints."""
    if (program := images.hello_program()) is not None:
        return write(
            tmp_path / "hello",
            {"hello": program, "Dockerfile": 'FROM scratch\nCOPY --chmod=755 hello /\nCMD ["/hello"]\n'},
        ), images.HELLO
    files = {"busybox": Path(images.busybox_path()).read_bytes()}
    lines = 'FROM scratch\nCOPY --chmod=755 busybox /\nCMD ["/busybox", "echo", "hello"]\n'
    return write(tmp_path / "hello", files | {"Dockerfile": lines}), "hello\n"


# build and run


def test_hello_world_from_scratch(engine, hello):
    directory, text = hello

    built = engine.docker("build", "-t", "hello-world", directory).stdout
    shown = engine.docker("run", "--rm", "hello-world")

    assert "Successfully tagged hello-world:latest" in built
    assert shown.stdout == text
    assert engine.docker("ps", "-aq").stdout == ""


def test_build_tells_its_steps(engine, web):
    shown = build_web(engine, web)

    steps = re.findall(r"^Step (\d+)/(\d+) : (.*)$", shown, re.MULTILINE)
    assert [(int(number), total) for number, total, _ in steps] == [(n, "9") for n in range(1, 10)]
    assert [
        text.split()[0] for *_, text in steps
    ] == "FROM LABEL WORKDIR COPY RUN COPY EXPOSE ENV CMD".split()
    assert "Using cache" not in shown
    built = re.search(r"^Successfully built ([0-9a-f]{12})$", shown, re.MULTILINE)
    assert built is not None
    assert image_id(engine, "web").removeprefix("sha256:").startswith(built[1])


def test_a_built_image_runs(engine, web):
    build_web(engine, web)

    shown = engine.docker("run", "--rm", "web").stdout

    assert shown == "hello\ninstalled one\ninstalled two\napp 1\n"


def test_the_second_build_uses_the_cache_for_every_step(engine, web):
    build_web(engine, web)
    first = image_id(engine, "web")

    shown = build_web(engine, web)

    assert shown.count(" ---> Using cache") == 8
    assert image_id(engine, "web") == first


def test_a_changed_file_is_built_again_from_its_step_on(engine, web):
    build_web(engine, web)
    (web / "app.sh").write_text("app 2\n")

    shown = build_web(engine, web)

    assert shown.count(" ---> Using cache") == 4
    assert engine.docker("run", "--rm", "web").stdout.endswith("app 2\n")


def test_an_ignored_file_changes_nothing(engine, web):
    build_web(engine, web)
    (web / "x.log").write_text("changed")

    shown = build_web(engine, web)

    assert shown.count(" ---> Using cache") == 8
    assert "x.log" not in engine.docker("run", "--rm", "web", "ls").stdout


def test_no_cache_builds_everything_again(engine, web):
    build_web(engine, web)

    shown = build_web(engine, web, "--no-cache")

    assert "Using cache" not in shown


def test_a_failing_step_fails_the_build_with_its_output(engine, tmp_path):
    directory = write(tmp_path / "bad", {"Dockerfile": "FROM busybox\nRUN echo before; false\n"})

    done = engine.docker("build", directory, check=False)

    assert done.returncode == 1
    assert "before" in done.stdout
    assert "The command '/bin/sh -c echo before; false' returned a non-zero code: 1" in done.stderr


def test_stages_copy_from_one_another(engine, tmp_path):
    dockerfile = """\
FROM busybox AS build
RUN echo made > /out
FROM busybox AS unused
RUN exit 1
FROM scratch
COPY --from=build /out /bin/out
COPY --from=build /bin/busybox /bin/cat
CMD ["/bin/cat", "/bin/out"]
"""
    directory = write(tmp_path / "stages", {"Dockerfile": dockerfile})

    engine.docker("build", "-t", "staged", directory)

    assert engine.docker("run", "--rm", "staged").stdout == "made\n"


def test_build_arguments_reach_steps(engine, tmp_path):
    lines = "ARG base=nothing\nFROM $base\nARG name=nobody\nRUN echo $name > /name\nCMD cat /name\n"
    directory = write(tmp_path / "args", {"Dockerfile": lines})

    engine.docker("build", "-t", "args", "--build-arg", "base=busybox", "--build-arg", "name=me", directory)

    assert engine.docker("run", "--rm", "args").stdout == "me\n"


def test_a_dockerfile_may_come_alone_on_stdin(engine):
    built = engine.docker("build", "-q", "-", input="FROM busybox\nRUN echo quiet\n").stdout

    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", built)


# looking


def test_images_are_listed_as_docker_lists_them(engine, web):
    build_web(engine, web)

    lines = engine.docker("images").stdout.splitlines()

    assert re.fullmatch(r"REPOSITORY +TAG +IMAGE ID +CREATED +SIZE", lines[0])
    web_line = next(line for line in lines if line.startswith("web "))
    assert re.fullmatch(
        r"web +latest +[0-9a-f]{12} +(Less than a second|\d+ seconds?|About a minute) ago +[\d.]+MB", web_line
    )


@pytest.mark.parametrize(("label", "expected"), [("a=b", ["web"]), ("a", ["web"]), ("a=c", []), ("b", [])])
def test_images_are_filtered_by_label(engine, web, label, expected):
    build_web(engine, web)

    shown = engine.docker("images", "--filter", f"label={label}", "--format", "{{.Repository}}").stdout

    assert shown.split() == expected


def test_history_has_every_instruction(engine, web):
    build_web(engine, web)

    lines = engine.docker(
        "history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Size}}", "web"
    ).stdout.splitlines()

    assert len(lines) == 9
    assert "CMD" in lines[0]
    assert lines[0].endswith("|0B")
    assert any("sed 's/^/installed /' deps.txt > vendor/list" in line for line in lines)


def test_inspect_shows_the_configuration(engine, web):
    build_web(engine, web)

    shown = json.loads(engine.docker("inspect", "web").stdout)[0]

    assert shown["RepoTags"] == ["web:latest"]
    assert shown["Config"]["Labels"] == {"a": "b"}
    assert shown["Config"]["WorkingDir"] == "/app"
    assert shown["Config"]["ExposedPorts"] == {"8000/tcp": {}}
    assert shown["Config"]["Env"][-1] == "GREETING=hello"
    assert shown["RootFS"]["Type"] == "layers"


def test_ps_logs_and_exit_codes(engine):
    engine.docker(
        "run", "--name", "seven", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False
    )

    line = engine.docker("ps", "-a", "--format", "{{.Names}}|{{.Image}}|{{.Command}}|{{.Status}}").stdout
    logs = engine.docker("logs", "seven")

    assert re.fullmatch(
        r"seven\|busybox\|\"sh -c 'echo out; ec…\"\|Exited \(7\) (Less than a second|\d+ seconds?) ago\n",
        line,
    )
    assert (logs.stdout, logs.stderr) == ("out\n", "err\n")
    assert engine.docker("wait", "seven").stdout == "7\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
        (["nowhere"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_run_ends_with_the_exit_code_of_the_program(engine, command, code):
    done = engine.docker("run", "--rm", "busybox", *command, check=False)

    assert done.returncode == code


def test_stdin_reaches_the_program(engine):
    shown = engine.docker("run", "--rm", "-i", "busybox", "tr", "a-z", "A-Z", input="to the end\n")

    assert shown.stdout == "TO THE END\n"


def test_info_version_df_and_events_answer(engine):
    engine.docker("run", "--name", "once", "busybox", "true")

    assert "Server Version: " in engine.docker("info").stdout
    assert "Server: Orlop" in engine.docker("version").stdout
    assert re.search(r"^Images +\d+ +\d+ ", engine.docker("system", "df").stdout, re.MULTILINE)
    shown = engine.docker(
        "events", "--since", "0", "--until", f"{time.time():.6f}", "--filter", "container=once"
    ).stdout
    assert [line.split()[2] for line in shown.splitlines()] == ["create", "attach", "start", "die"]


# at a terminal


def test_create_then_start_at_a_terminal(engine):
    name = engine.docker("create", "-t", "-i", "--name", "shell", "busybox").stdout.strip()

    with Terminal(["docker", "start", "-ai", "shell"], engine.client_env()) as terminal:
        terminal.expect("/ # ")
        terminal.type("echo $((6*7)); tty\n")
        terminal.expect("42\r\n/dev/")
        terminal.expect("/ # ")
        terminal.type("exit 5\n")
        code = terminal.wait()

    assert re.fullmatch("[0-9a-f]{64}", name)
    assert code == 5


def test_run_at_a_terminal_knows_its_size_and_removes_the_container(engine):
    command = ["docker", "run", "-it", "--rm", "busybox"]

    with Terminal(command, engine.client_env(), rows=33, columns=101) as terminal:
        terminal.expect("/ # ")
        terminal.type("stty size\n")
        terminal.expect("33 101\r\n")
        terminal.expect("/ # ")
        terminal.type("echo star''ted; sleep 60\n")
        terminal.expect("started\r\n")
        terminal.type("\x03")
        terminal.expect("/ # ")
        terminal.type("\x04")
        code = terminal.wait()

    assert code in (0, 130)
    assert engine.docker("ps", "-aq").stdout == ""


def test_detach_keys_leave_the_container_running(engine):
    with Terminal(["docker", "run", "-it", "--name", "kept", "busybox"], engine.client_env()) as terminal:
        terminal.expect("/ # ")
        terminal.type("\x10\x11")
        code = terminal.wait()

    assert code == 0
    assert engine.docker("ps", "--format", "{{.Names}}").stdout == "kept\n"


def test_exec_at_a_terminal(engine):
    engine.docker("run", "-d", "--name", "host", "busybox", "sleep", "60")

    with Terminal(["docker", "exec", "-it", "host", "sh"], engine.client_env()) as terminal:
        terminal.expect("/ # ")
        terminal.type("exit 4\n")
        code = terminal.wait()

    assert code == 4
    assert engine.docker("exec", "host", "echo", "out").stdout == "out\n"


# commit, remove, save


def test_commit_of_changes_is_an_image_that_runs(engine):
    engine.docker(
        "run", "--name", "changed", "busybox", "sh", "-c", "echo kept > /kept; rm /etc/group; chown 1000 /tmp"
    )

    made = engine.docker(
        "commit", "-m", "what changed", "-c", 'CMD ["cat", "/kept"]', "changed", "mine:1"
    ).stdout
    shown = engine.docker("run", "--rm", "mine:1").stdout
    listing = engine.docker(
        "run", "--rm", "mine:1", "sh", "-c", "ls /etc/group; stat -c %u:%a /tmp", check=False
    )

    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", made)
    assert shown == "kept\n"
    assert listing.stdout == "1000:1777\n"
    assert "what changed" in engine.docker("history", "mine:1").stdout


def test_diff_names_what_changed(engine):
    engine.docker(
        "run",
        "--name",
        "changed",
        "busybox",
        "sh",
        "-c",
        "echo > /tmp/new; rm /etc/group; echo >> /etc/passwd",
    )

    shown = engine.docker("diff", "changed").stdout.splitlines()

    assert sorted(shown) == ["A /tmp/new", "C /etc", "C /etc/passwd", "C /tmp", "D /etc/group"]


def test_rmi_by_five_digits(engine, web):
    build_web(engine, web)
    digits = image_id(engine, "web").removeprefix("sha256:")[:5]

    shown = engine.docker("rmi", digits).stdout

    assert shown.startswith("Untagged: web:latest\nDeleted: sha256:")
    assert engine.docker("images", "-q", "web").stdout == ""


def test_rmi_of_a_used_image_is_refused_as_docker_refuses(engine, web):
    build_web(engine, web)
    container = engine.docker("run", "-d", "web", "sleep", "60").stdout.strip()

    done = engine.docker("rmi", "web", check=False)

    assert done.returncode == 1
    assert done.stderr.startswith(
        'Error response from daemon: conflict: unable to remove repository reference "web" (must force)'
        f" - container {container[:12]} is using its referenced image "
    )


def test_save_and_load_bring_the_same_image_back(engine, web):
    build_web(engine, web)
    before = image_id(engine, "web")

    saved = engine.docker("save", "web", input=b"").stdout
    engine.docker("rmi", "web")
    loaded = engine.docker("load", input=saved).stdout

    assert loaded == b"Loaded image: web:latest\n"
    assert image_id(engine, "web") == before
    assert engine.docker("run", "--rm", "web").stdout.startswith("hello\n")


def test_save_piped_into_load_of_another_engine(engine, fresh_engine, web):
    build_web(engine, web)

    with (
        engine.popen("save", "web", stdin=subprocess.DEVNULL) as saving,
        fresh_engine.popen("load", stdin=saving.stdout) as loading,
    ):
        shown, errors = loading.communicate(timeout=60)

    assert (shown, errors) == (b"Loaded image: web:latest\n", b"")
    assert image_id(fresh_engine, "web") == image_id(engine, "web")


def test_a_container_is_listed_by_its_image_id_once_the_name_means_another(engine):
    engine.docker("tag", "busybox", "passing:1")
    engine.docker("run", "--name", "kept", "passing:1", "true")
    engine.docker("rmi", "passing:1")

    shown = engine.docker("ps", "-a", "--format", "{{.Image}}").stdout.strip()

    assert shown == image_id(engine, "busybox").removeprefix("sha256:")[:12]


def test_programs_find_out_that_they_are_in_a_container(engine):
    shown = engine.docker("run", "--name", "inside", "busybox", "ls", "-A", "/.dockerenv").stdout

    assert shown == "/.dockerenv\n"
    assert engine.docker("diff", "inside").stdout == ""
    assert engine.docker("ps", "-as", "--format", "{{.Size}}").stdout.startswith("0B ")
