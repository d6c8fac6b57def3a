import pytest

from orlop.base.errors import InvalidInput
from orlop.cli.create_body import create_body
from orlop.cli.create_flags import CREATE_FLAGS
from orlop.cli.flags import Command, parse

RUN = Command("run [OPTIONS] IMAGE", "", CREATE_FLAGS, min_args=1, is_interspersed=False)
FILES = {"env": "A=1\n# note\nHOST\n", "labels": "x=y\n", "profile": '{ "defaultAction": "SCMP_ACT_ALLOW" }'}


def body(*argv, is_detached=False):
    return create_body(parse(RUN, argv), {"HOST": "h"}, FILES.__getitem__, is_detached=is_detached)


def test_plain_run_attaches_output_only():
    made = body("busybox", "ls", "-l")

    assert (made["Image"], made["Cmd"]) == ("busybox", ["ls", "-l"])
    assert (made["AttachStdin"], made["AttachStdout"], made["AttachStderr"]) == (False, True, True)
    assert made["HostConfig"]["NetworkMode"] == "default"


def test_detached_run_attaches_nothing():
    made = body("-i", "busybox", is_detached=True)

    assert (made["OpenStdin"], made["StdinOnce"], made["AttachStdout"]) == (True, False, False)


def test_environment_comes_from_files_flags_and_the_caller():
    made = body("--env-file", "env", "-e", "B=2", "-e", "HOST", "-e", "GONE", "x")

    assert made["Env"] == ["A=1", "HOST=h", "B=2", "HOST=h", "GONE"]


def test_limits_are_in_the_units_of_the_api():
    host = body(
        "-m",
        "64m",
        "--memory-swap",
        "-1",
        "--cpus",
        "1.5",
        "--pids-limit",
        "9",
        "--ulimit",
        "nofile=1:2",
        "x",
    )["HostConfig"]

    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
        64 << 20,
        -1,
        1_500_000_000,
        9,
    )
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 1, "Hard": 2}]


def test_volumes_binds_mounts_and_tmpfs():
    made = body(
        "-v",
        "/a:/b:ro",
        "-v",
        "/anon",
        "--mount",
        "type=bind,src=/s,dst=/d,readonly",
        "--tmpfs",
        "/t:size=1m",
        "x",
    )

    assert made["Volumes"] == {"/anon": {}}
    assert made["HostConfig"]["Binds"] == ["/a:/b:ro"]
    assert made["HostConfig"]["Mounts"] == [
        {"Type": "bind", "Source": "/s", "Target": "/d", "ReadOnly": True}
    ]
    assert made["HostConfig"]["Tmpfs"] == {"/t": "size=1m"}


def test_ports_ranges_and_addresses():
    made = body(
        "-p", "127.0.0.1:8080:80", "-p", "9000-9001:90-91/udp", "-p", "[::1]::7", "--expose", "5-6", "x"
    )

    bindings = made["HostConfig"]["PortBindings"]
    assert bindings["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "8080"}]
    assert bindings["91/udp"] == [{"HostIp": "", "HostPort": "9001"}]
    assert bindings["7/tcp"] == [{"HostIp": "::1", "HostPort": ""}]
    assert set(made["ExposedPorts"]) == {"80/tcp", "90/udp", "91/udp", "7/tcp", "5/tcp", "6/tcp"}


def test_a_seccomp_profile_is_read_and_sent_as_json():
    assert body("--security-opt", "seccomp=profile", "x")["HostConfig"]["SecurityOpt"] == [
        'seccomp={"defaultAction":"SCMP_ACT_ALLOW"}'
    ]


def test_health_and_restart():
    made = body("--health-cmd", "true", "--health-interval", "2s", "--restart", "on-failure:3", "x")

    assert made["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000}
    assert made["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}


@pytest.mark.parametrize(
    "argv",
    [
        ("-a", "nose", "x"),
        ("-p", "x", "x"),
        ("-p", "80/foo", "x"),
        ("-p", "1-3:1-2", "x"),
        ("--mount", "type=bind,src=/a", "x"),
        ("--mount", "nope=1,target=/x", "x"),
        ("--ulimit", "nofile=a", "x"),
        ("--cpus", "many", "x"),
        ("-m", "lots", "x"),
        ("--restart", "always:3", "x"),
        ("--device", "a:b:c:d", "x"),
        ("-e", "=x", "x"),
    ],
)
def test_bad_values_are_refused(argv):
    with pytest.raises(InvalidInput):
        body(*argv)


@pytest.mark.parametrize("line", ["A B=1", "=1", " A\tB"])
def test_lines_of_an_env_file_that_docker_refuses(line):
    with pytest.raises(InvalidInput):
        create_body(parse(RUN, ["--env-file", "f", "image"]), {}, lambda _: line, is_detached=False)


def test_an_env_file_keeps_values_as_they_are():
    text = "\ufeff# note\r\n  A= spaces # kept \r\nHOME\nNOWHERE\nB=\x0b\x85\n\n"

    flags = parse(RUN, ["--env-file", "f", "image"])
    found = create_body(flags, {"HOME": "/root"}, lambda _: text, is_detached=False)

    assert found["Env"] == ["A= spaces # kept ", "HOME=/root", "B=\x0b\x85"]
