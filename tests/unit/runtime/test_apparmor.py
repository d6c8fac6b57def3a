"""AppArmor on a pretended host: a tree of files where /sys and the parser would be."""

import os
import shutil
import stat
import subprocess

import pytest

from orlop.runtime.apparmor import DEFAULT_PROFILE, AppArmorHost, apply_on_exec, profile_text


@pytest.fixture
def host(tmp_path):
    """A host with AppArmor whose parser keeps what it is given; `parser` changes what it does."""
    (tmp_path / "sys/module/apparmor/parameters").mkdir(parents=True)
    (tmp_path / "sys/module/apparmor/parameters/enabled").write_text("Y\n")
    (tmp_path / "sys/kernel/security/apparmor").mkdir(parents=True)
    (tmp_path / "sys/kernel/security/apparmor/profiles").write_text(
        "other profile (enforce)\n/bin/x (complain)\n"
    )
    (tmp_path / "usr/sbin").mkdir(parents=True)
    set_parser(tmp_path, f'cat > {tmp_path}/loaded; echo "$@" > {tmp_path}/words')
    return tmp_path


def set_parser(root, script):
    parser = root / "usr/sbin/apparmor_parser"
    parser.write_text(f"#!/bin/sh\n{script}\n")
    parser.chmod(parser.stat().st_mode | stat.S_IXUSR)


def test_loaded_profiles_are_listed(host):
    assert AppArmorHost(str(host)).profiles() == {"other profile", "/bin/x"}


def test_the_default_profile_is_generated_and_loaded(host):
    assert AppArmorHost(str(host)).ensure_default() == DEFAULT_PROFILE
    assert (host / "loaded").read_text() == profile_text()
    assert (host / "words").read_text() == "--replace --skip-cache\n"


@pytest.mark.parametrize("enabled", ["N\n", ""])
def test_a_host_without_apparmor_has_no_profile(host, enabled):
    (host / "sys/module/apparmor/parameters/enabled").write_text(enabled)

    assert AppArmorHost(str(host)).ensure_default() == ""
    assert not (host / "loaded").exists()


def test_a_profile_that_cannot_be_loaded_is_an_error(host):
    set_parser(host, "exit 3")

    with pytest.raises(OSError, match="exit code 3"):
        AppArmorHost(str(host)).ensure_default()

    (host / "sys/kernel/security/apparmor/profiles").write_text(f"{DEFAULT_PROFILE} (enforce)\n")
    assert AppArmorHost(str(host)).ensure_default() == DEFAULT_PROFILE


def test_a_host_without_the_parser_is_an_error(host):
    (host / "usr/sbin/apparmor_parser").unlink()

    with pytest.raises(OSError, match="could not load"):
        AppArmorHost(str(host)).ensure_default()


@pytest.mark.parametrize("files", [["attr/apparmor/exec", "attr/exec"], ["attr/exec"]])
def test_the_profile_is_written_to_the_private_procfs(tmp_path, files):
    for name in files:
        path = tmp_path / "thread-self" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    proc = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        apply_on_exec("orlop-default", proc)
    finally:
        os.close(proc)

    assert (tmp_path / "thread-self" / files[0]).read_text() == "exec orlop-default"


def test_a_kernel_without_it_fails_closed(tmp_path):
    proc = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(FileNotFoundError, match="apparmor failed to apply profile mine"):
            apply_on_exec("mine", proc)
    finally:
        os.close(proc)


def test_the_profile_closes_what_docker_s_closes():
    text = profile_text("x")

    for rule in (
        "deny mount,",
        "deny network alg,",
        "deny @{PROC}/sysrq-trigger rwklx,",
        "peer=x",
        "powercap",
    ):
        assert rule in text
    assert text.count("{") == text.count("}")


@pytest.mark.skipif(shutil.which("apparmor_parser") is None, reason="apparmor_parser is not installed")
def test_the_profile_is_taken_by_the_real_parser(tmp_path):
    profile = tmp_path / "profile"
    profile.write_text(profile_text())
    words = ["apparmor_parser", "--skip-kernel-load", "--skip-cache", str(profile)]

    done = subprocess.run(words, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
