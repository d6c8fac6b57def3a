import pytest

from orlop.base.errors import InvalidInput
from orlop.engine.privileges import (
    DEFAULT_CAPABILITIES,
    capabilities,
    check_device_rules,
    devices,
    sysctls,
)
from orlop.engine.requests import DeviceMapping, HostConfig
from orlop.kernel.capabilities import ALL_NAMES


def test_a_plain_container_has_docker_s_fourteen():
    assert set(capabilities(HostConfig())) == set(DEFAULT_CAPABILITIES)
    assert len(DEFAULT_CAPABILITIES) == 14


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        (HostConfig(privileged=True), set(ALL_NAMES)),
        (HostConfig(cap_add=("ALL",)), set(ALL_NAMES)),
        (HostConfig(cap_drop=("all",)), set()),
        (HostConfig(cap_drop=("ALL",), cap_add=("cap_net_raw",)), {"NET_RAW"}),
        (HostConfig(cap_add=("ALL",), cap_drop=("CAP_SYS_ADMIN",)), set(ALL_NAMES) - {"SYS_ADMIN"}),
        (HostConfig(cap_drop=("MKNOD",)), set(DEFAULT_CAPABILITIES) - {"MKNOD"}),
    ],
)
def test_capabilities_are_added_and_dropped(host, wanted):
    assert set(capabilities(host)) == wanted


def test_an_unknown_capability_is_refused():
    with pytest.raises(InvalidInput, match='invalid CapAdd: unknown capability: "CAP_FLY"'):
        capabilities(HostConfig(cap_add=("fly",)))


def test_only_namespaced_sysctls_are_set():
    assert (
        sysctls(HostConfig(sysctls={"net.core.somaxconn": "5", "kernel.shmmax": "1"}))["kernel.shmmax"] == "1"
    )
    for name in ("kernel.core_pattern", "vm.swappiness", "net..x", "kernel.shm_rmid_forced/../core_pattern"):
        with pytest.raises(InvalidInput):
            sysctls(HostConfig(sysctls={name: "1"}))
    with pytest.raises(InvalidInput):
        sysctls(HostConfig(sysctls={"net.core.somaxconn": "1\n2"}))


def test_a_shared_network_is_not_changed():
    with pytest.raises(InvalidInput, match="host network namespace"):
        sysctls(HostConfig(network_mode="host", sysctls={"net.ipv4.ip_forward": "1"}))
    assert sysctls(HostConfig(network_mode="host")) == {}


def test_device_rules_have_a_grammar():
    assert check_device_rules(("c 7:* rwm",)) == ("c 7:* rwm",)
    with pytest.raises(InvalidInput):
        check_device_rules(("c 7:1 rwmx\na *:* rwm",))


def test_a_device_of_the_host_is_described():
    (device,) = devices(HostConfig(devices=(DeviceMapping("/dev/null", "/dev/nothing", "r"),)))

    assert (device.path, device.kind, device.major, device.minor, device.access) == (
        "/dev/nothing",
        "c",
        1,
        3,
        "r",
    )


@pytest.mark.parametrize(
    "mapping",
    [
        DeviceMapping("/dev/nope", "/dev/x", "rwm"),
        DeviceMapping("/etc/passwd", "/dev/x", "rwm"),
        DeviceMapping("/dev/null", "/dev/../x", "rwm"),
        DeviceMapping("/dev/null", "/dev/x", "rwx"),
    ],
)
def test_what_is_no_device_is_refused(mapping):
    with pytest.raises(InvalidInput):
        devices(HostConfig(devices=(mapping,)))
