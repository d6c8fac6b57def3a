import pytest

from orlop.base.errors import InvalidInput
from orlop.engine.hostconfig import (
    MASKED_PATHS,
    HostDefaults,
    apply_defaults,
    check_config,
    check_host,
    default_pids_limit,
)
from orlop.engine.requests import (
    ContainerConfig,
    HealthConfig,
    HostConfig,
    LogConfig,
    RestartPolicy,
)

MIB = 1 << 20


def check(host, config=None):
    return check_host(host, config or ContainerConfig())


def test_every_open_choice_is_decided_as_inspect_shows_it():
    host = apply_defaults(HostConfig(memory=100 * MIB), HostDefaults())

    assert host.network_mode == "bridge"
    assert host.restart_policy == RestartPolicy("no")
    assert host.log_config == LogConfig("json-file", {})
    assert host.memory_swap == 200 * MIB
    assert host.pids_limit is None
    assert host.shm_size == 64 * MIB
    assert host.masked_paths == MASKED_PATHS
    assert (host.ipc_mode, host.cgroupns_mode) == ("private", "private")


def test_nothing_is_masked_in_a_privileged_container():
    assert apply_defaults(HostConfig(privileged=True), HostDefaults()).masked_paths is None


def test_options_of_the_default_log_driver_are_inherited():
    defaults = HostDefaults(log_options=(("max-size", "1m"),))

    inherited = apply_defaults(HostConfig(log_config=LogConfig("", {"max-file": "3"})), defaults)
    other = apply_defaults(HostConfig(log_config=LogConfig("local")), defaults)

    assert inherited.log_config == LogConfig("json-file", {"max-size": "1m", "max-file": "3"})
    assert other.log_config == LogConfig("local", {})


@pytest.mark.parametrize(
    ("host", "text"),
    [
        (HostConfig(oom_score_adj=2000), "range for oom score adj"),
        (HostConfig(auto_remove=True, restart_policy=RestartPolicy("always")), "can't create 'AutoRemove'"),
        (HostConfig(log_config=LogConfig("asdf")), "logger: no log driver named 'asdf' is registered"),
        (HostConfig(log_config=LogConfig("json-file", {"x": "y"})), "unknown log opt 'x'"),
        (HostConfig(pid_mode="else"), "invalid PID mode: else"),
        (HostConfig(ipc_mode="else"), "invalid IPC mode: else"),
        (HostConfig(network_mode="container:"), "empty container name"),
    ],
)
def test_contradictions_are_refused_with_docker_s_words(host, text):
    with pytest.raises(InvalidInput, match=text):
        check(host)


def test_a_shared_network_leaves_no_room_for_a_name():
    with pytest.raises(InvalidInput, match="hostname and the network mode"):
        check(HostConfig(network_mode="container:web"), ContainerConfig(hostname="x"))


def test_the_missing_bridge_is_said_plainly():
    assert "loopback" in check(HostConfig())[0]
    assert check(HostConfig(network_mode="none")) == []


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (ContainerConfig(working_dir="rel"), "needs to be an absolute path"),
        (ContainerConfig(env=("=x",)), "invalid environment variable: =x"),
        (ContainerConfig(cmd=("a\0b",)), "NUL byte"),
        (ContainerConfig(stop_signal="SIGNOPE"), "invalid signal"),
        (ContainerConfig(healthcheck=HealthConfig(interval=5)), "Interval in Healthcheck"),
        (ContainerConfig(healthcheck=HealthConfig(retries=-1)), "Retries in Healthcheck"),
        (ContainerConfig(healthcheck=HealthConfig(test=("RUN", "x"))), "Unknown type"),
    ],
)
def test_wrong_configurations_are_refused(config, text):
    with pytest.raises(InvalidInput, match=text):
        check_config(config)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        (0, None),
        (7, 7),
        (-1, -1),
        (-5, -1),
    ],  # docker's CLI sends 0 for a flag that was not given
)
def test_only_what_was_asked_for_is_kept_of_the_pids_limit(given, kept):
    assert apply_defaults(HostConfig(pids_limit=given), HostDefaults()).pids_limit == kept


@pytest.mark.parametrize(
    ("pid_max", "limit"), [(4194304, 4096), (32768, 4096), (8192, 2048), (301, 75), (0, 4096)]
)
def test_a_container_gets_a_quarter_of_all_pids_at_most(pid_max, limit):
    assert default_pids_limit(pid_max) == limit
