import pytest

from orlop.base.errors import InvalidInput
from orlop.engine.merge import merge_config, merge_env, overlay_env, path_and_args, process_env
from orlop.engine.requests import ContainerConfig, HealthConfig

IMAGE = ContainerConfig(
    entrypoint=("/entry",),
    cmd=("serve",),
    env=("PATH=/bin", "A=image"),
    labels={"from": "image", "both": "image"},
    working_dir="/srv",
    user="app",
    volumes=frozenset({"/data"}),
    exposed_ports=frozenset({"80/tcp"}),
    healthcheck=HealthConfig(test=("CMD", "check"), interval=5),
    stop_signal="SIGQUIT",
)


def words(config):
    path, args = path_and_args(config)
    return [path, *args]


@pytest.mark.parametrize(
    ("user", "wanted"),
    [
        (ContainerConfig(), ["/entry", "serve"]),
        (ContainerConfig(cmd=("other",)), ["/entry", "other"]),
        (ContainerConfig(entrypoint=("/mine",)), ["/mine"]),
        (ContainerConfig(entrypoint=("/mine",), cmd=("x",)), ["/mine", "x"]),
        (ContainerConfig(entrypoint=("",), cmd=("sh",)), ["sh"]),
    ],
)
def test_a_new_entrypoint_drops_the_command_of_the_image(user, wanted):
    assert words(merge_config(user, IMAGE)) == wanted


def test_without_any_command_nothing_is_created():
    with pytest.raises(InvalidInput, match="no command specified"):
        merge_config(ContainerConfig(), ContainerConfig())


def test_what_the_user_did_not_say_comes_from_the_image():
    merged = merge_config(ContainerConfig(env=("A=user",), labels={"both": "user"}), IMAGE)

    assert merged.env == ("A=user", "PATH=/bin")
    assert merged.labels == {"from": "image", "both": "user"}
    assert merged.working_dir == "/srv"
    assert merged.user == "app"
    assert merged.stop_signal == "SIGQUIT"
    assert merged.volumes == frozenset({"/data"})
    assert merged.exposed_ports == frozenset({"80/tcp"})


def test_health_checks_are_merged_by_field():
    user = ContainerConfig(healthcheck=HealthConfig(retries=7))

    assert merge_config(user, IMAGE).healthcheck == HealthConfig(test=("CMD", "check"), interval=5, retries=7)


def test_a_variable_without_value_is_kept_in_the_configuration_and_removed_from_the_process():
    assert merge_env(("A=1",), ("B",)) == ("B", "A=1")
    assert overlay_env(("A=1", "B=2"), ("B", "C=3")) == ("A=1", "C=3")


def test_the_process_gets_docker_s_defaults():
    env = process_env(ContainerConfig(tty=True, env=("PATH=/x",)), "box")

    assert env == ("PATH=/x", "HOSTNAME=box", "TERM=xterm")
