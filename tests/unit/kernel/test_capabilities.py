import pytest

from orlop.kernel import capabilities

DOCKER = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
    "SYS_CHROOT KILL AUDIT_WRITE"
).split()


def test_docker_default_set_is_the_documented_mask():
    assert capabilities.mask_of(DOCKER) == 0xA80425FB


def test_names_round_trip():
    mask = capabilities.mask_of(DOCKER)

    assert capabilities.mask_of(capabilities.names_of(mask)) == mask
    assert set(capabilities.names_of(mask)) == set(DOCKER)


@pytest.mark.parametrize("name", ["NET_RAW", "cap_net_raw", "CAP_NET_RAW", "net_raw"])
def test_all_spellings(name):
    assert capabilities.normalize(name) == "NET_RAW"


@pytest.mark.parametrize("name", ["", "CAP_", "ALL", "NET_RAWX"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match="unknown capability"):
        capabilities.mask_of([name])


def test_bits_of_newer_kernels_keep_their_number():
    assert capabilities.names_of(1 << 50) == ("50",)


def test_last_capability_agrees_with_proc():
    with open("/proc/sys/kernel/cap_last_cap") as file:
        assert capabilities.last_capability() == int(file.read())


def test_current_agrees_with_proc():
    sets = capabilities.current()
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t") for line in file if line.startswith("Cap"))

    assert int(status["CapEff"], 16) == sets.effective
    assert int(status["CapPrm"], 16) == sets.permitted
    assert int(status["CapInh"], 16) == sets.inheritable
    assert int(status["CapBnd"], 16) == sets.bounding
    assert int(status["CapAmb"], 16) == sets.ambient
