import pytest

from orlop.base.errors import InvalidInput
from orlop.daemon_flags import FLAGS, ShowHelp, parse_file, parse_flags, resolve


def settings(*argv, file="{}"):
    return resolve(parse_flags(argv), parse_file(file, "/etc/x.json"), "/etc/x.json")


def test_flags_are_taken_in_all_their_forms():
    given = settings(
        "-H", "unix:///a", "-Htcp://b", "--host=fd://", "-D", "--data-root", "/d/", "--tls=false"
    )

    assert given.hosts == ("unix:///a", "tcp://b", "fd://")
    assert given.is_debug
    assert given.log_level == "debug"
    assert given.data_root == "/d"
    assert given.is_tls is False
    assert settings().is_tls is None


def test_the_defaults_are_ours():
    given = settings()

    assert (given.data_root, given.exec_root, given.hosts) == ("/var/lib/orlop", "/run/orlop", ())
    assert given.keeps_containers


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--nope"], "unknown flag: --nope"),
        (["-x"], "unknown shorthand flag"),
        (["--data-root"], "flag needs an argument"),
        (["--debug=perhaps"], "true or false is wanted"),
        (["--mtu", "big"], "a number is wanted"),
        (["stray"], "accepts no arguments"),
        (["--data-root", "relative"], "not absolute"),
        (["--log-driver", "splunk"], "no log driver named 'splunk'"),
        (["--default-cgroupns-mode", "x"], "invalid default cgroup namespace"),
        (["--default-ulimit", "nofile=x"], "invalid ulimit"),
        (["--feature", "a=b"], "true or false"),
        (["--log-opt", "max-size"], "KEY=VALUE is wanted"),
        (["--userns-remap", "default", "--default-userns-mode", "auto"], "exclude one another"),
        (["--default-userns-mode", "private"], "host or auto is wanted"),
    ],
)
def test_wrong_flags_are_refused(argv, text):
    with pytest.raises(InvalidInput, match=text):
        settings(*argv)


def test_the_file_has_the_keys_of_daemon_json():
    given = settings(
        file="""{"hosts": ["unix:///x"], "insecure-registries": ["a:5000"], "registry-mirrors": ["http://m"],
        "log-opts": {"max-size": "1m"}, "features": {"containerd-snapshotter": true}, "debug": true,
        "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}}, "live-restore": false,
        "storage-driver": "overlay2", "runtimes": {"x": {"path": "/x"}}}"""
    )

    assert given.hosts == ("unix:///x",)
    assert given.insecure_registries == ("a:5000",)
    assert given.registry_mirrors == ("http://m",)
    assert given.log_options == {"max-size": "1m"}
    assert given.features == {"containerd-snapshotter": True}
    assert given.ulimits == (("nofile", 1, 2),)
    assert not given.keeps_containers
    assert [(item.name, item.path) for item in given.runtimes] == [("x", "/x")]
    assert set(given.notes) == {"--storage-driver has no effect"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"colour": "red"}', "don't match any configuration option: colour"),
        ("[]", "not a JSON object"),
        ("{", "invalid JSON"),
        ('{"debug": "yes"}', "debug: a bool is wanted"),
        ('{"hosts": "unix:///x"}', "hosts: a list is wanted"),
    ],
)
def test_a_wrong_file_is_refused(text, reason):
    with pytest.raises(InvalidInput, match=reason):
        settings(file=text)


def test_a_setting_in_both_places_is_a_conflict():
    with pytest.raises(InvalidInput, match=r"hosts: \(from flag: \[unix:///a\], from file: \[unix:///b\]\)"):
        settings("-H", "unix:///a", file='{"hosts": ["unix:///b"]}')


def test_help_lists_what_has_an_effect_and_names_the_rest():
    with pytest.raises(ShowHelp) as shown:
        parse_flags(["--help"])

    text = str(shown.value)
    for flag in FLAGS:
        assert f"--{flag.name}" in text
        assert flag.help or not flag.has_effect


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if not flag.has_effect], ids=lambda flag: flag.name)
def test_what_launches_dockerd_launches_us(flag):
    value = {"bool": "true", "int": "1"}.get(flag.kind, "a=b")

    given = settings(f"--{flag.name}={value}")

    assert given.notes == (f"--{flag.name} has no effect",)


def test_the_engine_s_security_settings():
    settings = resolve(
        parse_flags(["--default-security=hardened"]), parse_file('{"seccomp-profile": "/p"}', "f"), "f"
    )
    plain = resolve({}, {}, "f")

    assert (settings.default_security, settings.seccomp_profile) == ("hardened", "/p")
    assert (plain.default_security, plain.seccomp_profile) == ("docker", "builtin")
    with pytest.raises(InvalidInput, match="docker or hardened is wanted"):
        resolve(parse_flags(["--default-security", "strict"]), {}, "f")


def test_proxies_come_from_the_file_or_a_flag_and_passwords_are_masked():
    text = '{"proxies": {"http-proxy": "http://u:geheim@p:1", "no-proxy": "a,b"}}'
    file = parse_file(text, "f")

    given = resolve({}, file, "f")

    assert (given.http_proxy, given.https_proxy, given.no_proxy) == (
        "http://u:geheim@p:1",
        None,
        "a,b",
    )
    with pytest.raises(InvalidInput, match="xxxxx:xxxxx@p:1") as caught:
        resolve({"http-proxy": "http://x"}, file, "f")
    assert "geheim" not in str(caught.value)
    with pytest.raises(InvalidInput, match="ftp-proxy"):
        parse_file('{"proxies": {"ftp-proxy": "x"}}', "f")


def test_registry_settings():
    flags = parse_flags(
        ["--registry-config-dir", "/a", "--blocked-registry=*.bad", "--max-download-attempts", "2"]
    )

    given = resolve(flags, {}, "f")

    assert given.registry_config_dirs == ("/a",)
    assert given.blocked_registries == ("*.bad",)
    assert given.max_download_attempts == 2
    with pytest.raises(InvalidInput, match="invalid max download attempts: 0"):
        resolve(parse_flags(["--max-download-attempts=0"]), {}, "f")
