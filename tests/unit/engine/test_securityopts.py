import json

import pytest

from orlop.base.errors import InvalidInput
from orlop.engine.hostconfig import MASKED_PATHS, HostDefaults, apply_defaults
from orlop.engine.privileges import DEFAULT_CAPABILITIES, capabilities
from orlop.engine.requests import HostConfig
from orlop.engine.securityopts import (
    HARDENED_DROPS,
    apply_preset,
    named_apparmor_profile,
    parse_security,
    read_seccomp_profile,
)

PODMANS_ELEVEN = set(DEFAULT_CAPABILITIES) - {"AUDIT_WRITE", "MKNOD", "NET_RAW"}
ALLOW_ALL = '{"defaultAction":"SCMP_ACT_ALLOW"}'


def parse(*options, privileged=False, **defaults):
    return parse_security(options, is_privileged=privileged, defaults=HostDefaults(**defaults))


def test_security_options_are_understood():
    assert parse().has_seccomp
    assert not parse("seccomp=unconfined").has_seccomp
    assert not parse("seccomp:unconfined").has_seccomp
    assert parse(f"seccomp={ALLOW_ALL}").seccomp_profile is not None
    assert parse("writable-cgroups=true").has_writable_cgroup
    assert not parse("label=disable", "label:disable", "disable", "apparmor=unconfined").has_writable_cgroup


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("no-new-privileges", True),
        ("no-new-privileges:true", True),
        ("no-new-privileges=1", True),
        ("no-new-privileges=false", False),
        ("no-new-privileges:F", False),
    ],
)
def test_no_new_privileges_wins_over_the_engine_s(option, wanted):
    assert parse(option).no_new_privileges is wanted
    assert parse(option, no_new_privileges=True).no_new_privileges is wanted


@pytest.mark.parametrize(
    "option",
    [
        "x=y",
        "word",
        "credentialspec=f",
        "no-new-privileges=maybe",
        "no-new-privileges=",
        "hardened=2",
        "writable-cgroups=yes",
        "label=type:svirt_t",
        "systempaths=confined",
        "mask=/proc",
        "unmask=ALL",
    ],
)
def test_an_unknown_option_is_refused_with_docker_s_text(option):
    with pytest.raises(InvalidInput) as caught:
        parse(option)

    assert f'invalid --security-opt 2: "{option}"' in caught.value.message


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("{", "Decoding seccomp profile failed"),
        ("[]", "Decoding seccomp profile failed"),
        ('{"defaultAction":"SCMP_ACT_NOTIFY"}', "is not supported"),
        ('{"defaultAction":"NO"}', "is unknown"),
        (
            json.dumps(
                {
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "architectures": ["SCMP_ARCH_X86_64"],
                    "archMap": [{"architecture": "SCMP_ARCH_X86_64"}],
                }
            ),
            "use either 'architectures' or 'archMap'",
        ),
    ],
)
def test_a_bad_profile_is_found_when_the_container_is_made(profile, words):
    with pytest.raises(InvalidInput) as caught:
        parse(f"seccomp={profile}")

    assert words in caught.value.message


def test_privileged_keeps_the_confinement_that_the_user_names():
    assert not parse(privileged=True).has_seccomp
    assert parse("seccomp=builtin", privileged=True).has_seccomp
    assert parse(f"seccomp={ALLOW_ALL}", privileged=True).seccomp_profile is not None
    assert parse(privileged=True, apparmor_profile="orlop-default").apparmor_profile == ""
    assert parse("apparmor=mine", privileged=True, apparmor_profile="x").apparmor_profile == "mine"


def test_the_engine_s_profile_is_for_those_that_name_none():
    own = {"defaultAction": "SCMP_ACT_ERRNO"}

    assert parse(seccomp_profile=own).seccomp_profile == own
    assert parse("seccomp=builtin", seccomp_profile=own).seccomp_profile is None
    assert not parse(has_seccomp=False).has_seccomp
    assert parse("seccomp=builtin", has_seccomp=False).has_seccomp
    assert parse(seccomp_profile=own, privileged=True).seccomp_profile is None


def test_apparmor_is_never_pretended():
    for option in ("apparmor=mine", "apparmor=docker-default"):
        with pytest.raises(InvalidInput, match="apparmor: config provided but apparmor not supported"):
            parse(option)
    assert parse(apparmor_profile="orlop-default").apparmor_profile == "orlop-default"
    assert parse("apparmor=unconfined", apparmor_profile="orlop-default").apparmor_profile == ""
    with pytest.raises(InvalidInput, match="invalid AppArmor profile name"):
        parse("apparmor=a\nb", apparmor_profile="orlop-default")


def harden(preset="docker", **host):
    return apply_preset(HostConfig(**host), preset)


def test_hardened_is_written_out():
    host = harden(security_opt=("hardened=true",))

    assert set(capabilities(host)) == PODMANS_ELEVEN
    assert host.security_opt == ("no-new-privileges", "hardened=true")
    assert host.cap_drop == tuple(f"CAP_{name}" for name in HARDENED_DROPS)
    security = parse(*host.security_opt)
    assert security.no_new_privileges
    assert security.has_hardened_seccomp


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"cap_add": ("NET_RAW",)}, PODMANS_ELEVEN | {"NET_RAW"}),
        ({"cap_drop": ("ALL",), "cap_add": ("CHOWN",)}, {"CHOWN"}),
        ({"cap_drop": ("net_raw",)}, PODMANS_ELEVEN),
    ],
)
def test_what_the_user_says_wins_over_the_preset(asked, wanted):
    assert set(capabilities(harden("hardened", **asked))) == wanted


def test_options_of_the_user_win_over_the_preset():
    host = harden("hardened", security_opt=("no-new-privileges=false", "seccomp=builtin"))
    security = parse(*host.security_opt)

    assert not security.no_new_privileges
    assert not security.has_hardened_seccomp
    assert security.has_seccomp


def test_the_engine_s_preset_can_be_left():
    assert harden("hardened", security_opt=("hardened=false",)).cap_drop is None
    assert harden("hardened", privileged=True) == HostConfig(privileged=True)
    assert harden("hardened").security_opt == ("no-new-privileges", "hardened=true")
    assert harden() == HostConfig()


def test_hardened_and_privileged_is_a_contradiction():
    with pytest.raises(InvalidInput, match="conflicting options: hardened and privileged"):
        harden(security_opt=("hardened",), privileged=True)


def test_a_preset_applied_twice_is_the_same():
    host = harden("hardened")

    assert apply_preset(host, "docker") == host


def test_bare_system_paths():
    assert apply_defaults(HostConfig(), HostDefaults()).masked_paths == MASKED_PATHS
    host = apply_defaults(HostConfig(security_opt=("systempaths=unconfined",)), HostDefaults())
    assert (host.masked_paths, host.readonly_paths) == ((), ())


def test_inspect_names_the_profile_that_was_asked_for():
    assert named_apparmor_profile(("no-new-privileges", "apparmor=one", "apparmor:two")) == "two"
    assert named_apparmor_profile(("apparmor=unconfined",)) == "unconfined"
    assert named_apparmor_profile(()) == ""


def test_the_engine_s_profile_is_read_when_it_starts(tmp_path):
    path = tmp_path / "profile.json"
    path.write_text(ALLOW_ALL)

    assert read_seccomp_profile(str(path)) == {"defaultAction": "SCMP_ACT_ALLOW"}
    assert read_seccomp_profile("builtin") is read_seccomp_profile("unconfined") is None
    with pytest.raises(InvalidInput, match=r"opening seccomp profile .* failed: No such file"):
        read_seccomp_profile(str(tmp_path / "none"))
    path.write_text("[]")
    with pytest.raises(InvalidInput, match="Decoding seccomp profile failed"):
        read_seccomp_profile(str(path))
