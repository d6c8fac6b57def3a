import pytest

from orlop.base.errors import InvalidInput
from orlop.cli.flags import parse
from orlop.cli.update_verb import COMMAND, update_body


def body(*words):
    return update_body(parse(COMMAND, [*words, "web"]))


def test_nothing_given_is_nothing_sent():
    assert body() == {}


def test_limits_and_the_policy_are_docker_s_fields():
    given = (
        "--memory",
        "64m",
        "--memory-swap=-1",
        "--cpus",
        "1.5",
        "--pids-limit=9",
        "--restart",
        "on-failure:3",
    )

    assert body(*given) == {
        "Memory": 64 << 20,
        "MemorySwap": -1,
        "NanoCpus": 1_500_000_000,
        "PidsLimit": 9,
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
    }


def test_everything_else_is_one_object_of_our_own():
    given = (
        *("--env-add", "A=1", "--env-rm", "B", "--label-add", "x=y", "--label-rm", "z"),
        *("--volume-add", "data:/data", "--mount-add", "type=tmpfs,target=/t", "--mount-rm", "/old"),
        *("--publish-add", "8080:80", "--publish-rm", "81/tcp", "--apply", "--time", "3"),
        *("--health-cmd", "true", "--health-on-failure", "restart", "--tmpfs-add", "/s:size=1m"),
    )

    assert body(*given) == {
        "Orlop": {
            "Add": {
                "Env": ["A=1"],
                "Labels": {"x": "y"},
                "Binds": ["data:/data"],
                "Mounts": [{"Type": "tmpfs", "Target": "/t"}],
                "Tmpfs": {"/s": "size=1m"},
                "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
            },
            "Remove": {"Env": ["B"], "Labels": ["z"], "Mounts": ["/old"], "Ports": ["81/tcp"]},
            "Healthcheck": {"Test": ["CMD-SHELL", "true"]},
            "HealthOnFailure": "restart",
            "Restart": True,
            "Timeout": 3,
        }
    }


@pytest.mark.parametrize("words", [("--cpus", "many"), ("--blkio-weight", "x"), ("--publish-add", "a:b")])
def test_values_that_are_none_are_refused(words):
    with pytest.raises(InvalidInput):
        body(*words)
