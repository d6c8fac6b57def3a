"""--security-opt and --cap-add as unmodified clients send them: profiles in both forms, presets, refusals."""

import json
import subprocess

import docker
import pytest

pytestmark = pytest.mark.system
NO_MKDIR = {"action": "SCMP_ACT_ERRNO", "errnoRet": 5}
OLD = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
    "syscalls": [{"name": name, "action": "SCMP_ACT_ERRNO", "args": []} for name in ("mkdir", "mkdirat")],
}
NEW = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
    ],
    "syscalls": [
        {"names": ["mkdir", "mkdirat"], **NO_MKDIR},
        {"names": ["chmod", "fchmodat"], **NO_MKDIR, "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["chown", "fchownat"], **NO_MKDIR, "excludes": {"minKernel": "4.8"}},
        {"names": ["umask"], **NO_MKDIR, "args": [{"index": 0, "value": 0o777, "op": "SCMP_CMP_EQ"}]},
    ],
}


def run(engine, *words, check=True):
    return engine.docker("run", "--rm", "--network", "none", *words, check=check)


@pytest.mark.parametrize(
    ("profile", "text"), [(OLD, "Operation not permitted"), (NEW, "Input/output error")], ids=["old", "new"]
)
def test_a_profile_of_the_user(engine, tmp_path, profile, text):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    script = "mkdir /x; touch /f; chmod 600 /f && chown 1:1 /f && echo fine"

    done = run(engine, "--security-opt", f"seccomp={path}", "busybox", "sh", "-c", script)

    assert f"can't create directory '/x': {text}" in done.stderr
    assert done.stdout == "fine\n"


def test_conditions_follow_the_capabilities(engine, tmp_path):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(NEW))
    words = ("--security-opt", f"seccomp={path}", "--cap-add", "sys_admin", "busybox", "chmod", "600", "/etc")

    assert "Input/output error" in run(engine, *words, check=False).stderr


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"architectures": ["SCMP_ARCH_X86_64"]}, "use either 'architectures' or 'archMap'"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "'SCMP_ACT_NOTIFY' is not supported"),
        (
            {"syscalls": [{"name": "a", "names": ["b"], "action": "SCMP_ACT_ALLOW"}]},
            "use either 'name' or 'names'",
        ),
        ({"syscalls": [{"names": ["a"], "action": "SCMP_ACT_NEVER"}]}, "is unknown"),
    ],
)
def test_a_bad_profile_is_refused_at_create(engine, tmp_path, change, text):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(NEW | change))

    done = run(engine, "--security-opt", f"seccomp={path}", "busybox", "true", check=False)

    assert done.returncode == 125
    assert text in done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--security-opt", "x=y"), 'invalid --security-opt 2: "x=y"'),
        (
            ("--security-opt", "no-new-privileges=maybe"),
            'invalid --security-opt 2: "no-new-privileges=maybe"',
        ),
        (("--security-opt", "label=type:svirt_t"), "SELinux is not supported"),
        (("--cap-add", "FLY"), 'invalid CapAdd: unknown capability: "CAP_FLY"'),
        (("--cap-drop", "cap_swim"), 'invalid CapDrop: unknown capability: "CAP_SWIM"'),
        (("--privileged", "--security-opt", "hardened=true"), "conflicting options: hardened and privileged"),
    ],
)
def test_what_cannot_be_given_is_refused(engine, words, text):
    done = run(engine, *words, "busybox", "true", check=False)

    assert done.returncode == 125
    assert text in done.stderr


def test_a_word_alone_over_the_api(engine):
    client = engine.api()
    shown = client.containers.run(
        "busybox",
        ["grep", "-E", "^(CapEff|NoNewPrivs)", "/proc/self/status"],
        security_opt=["hardened", "label=disable"],
        network_mode="none",
        remove=True,
    )
    with pytest.raises(docker.errors.APIError, match='invalid --security-opt 2: "word"'):
        client.containers.create("busybox", "true", security_opt=["word"])

    assert shown.split() == [b"CapEff:", b"00000000800405fb", b"NoNewPrivs:", b"1"]


def test_an_exec_is_as_hardened_as_its_container(engine):
    words = ("run", "-d", "--network", "none", "--security-opt", "hardened=true", "busybox", "sleep", "60")
    container = engine.docker(*words).stdout.strip()
    shown = engine.docker(
        "exec", container, "grep", "-E", "^(CapBnd|NoNewPrivs|Seccomp:)", "/proc/self/status"
    )
    engine.docker("rm", "-f", container)

    assert shown.stdout.split() == ["CapBnd:", "00000000800405fb", "NoNewPrivs:", "1", "Seccomp:", "2"]


def test_system_paths_can_be_opened(engine):
    script = "stat -c %t:%T /proc/keys; [ -w /proc/sys/kernel/domainname ] && touch /proc/sys/kernel/domainname && echo open"
    closed = run(engine, "busybox", "sh", "-c", script, check=False)
    opened = run(engine, "--security-opt", "systempaths=unconfined", "busybox", "sh", "-c", script)

    assert closed.stdout == "1:3\n"
    assert opened.stdout == "0:0\nopen\n"


def test_cgroups_can_be_made_writable(engine):
    script = "for d in /sys/fs/cgroup /sys/fs/cgroup/pids; do mkdir $d/inner 2>/dev/null && rmdir $d/inner && echo made; done; true"

    assert run(engine, "busybox", "sh", "-c", script).stdout == ""
    made = run(engine, "--security-opt", "writable-cgroups=true", "busybox", "sh", "-c", script)
    assert "made" in made.stdout
    assert run(engine, "--security-opt", "writable-cgroups=false", "busybox", "sh", "-c", script).stdout == ""


@pytest.mark.parametrize("word", ["hardened", "hardened=true"])
def test_our_own_client_takes_the_short_form_too(engine, tmp_path, word):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(NEW))
    script = "grep NoNewPrivs /proc/self/status; mkdir /x"
    words = ("--security-opt", word, "--security-opt", f"seccomp={path}", "busybox", "sh", "-c", script)

    done = engine.orlop("run", "--rm", "--network", "none", *words, check=False)

    assert done.stdout.split() == ["NoNewPrivs:", "1"]
    assert "Input/output error" in done.stderr


def test_our_own_client_opens_system_paths(engine):
    words = ("--security-opt", "systempaths=unconfined", "busybox", "stat", "-c", "%t:%T", "/proc/keys")

    assert engine.orlop("run", "--rm", "--network", "none", *words).stdout == "0:0\n"


def test_no_one_else_reads_the_engine_s_state(engine):
    """Whoever is not root finds nothing below the roots: no layer, no log, no secret."""
    run(engine, "-v", "kept:/kept", "busybox", "sh", "-c", "touch /kept/file; chmod 4777 /kept /kept/file")
    script = "find {} -mindepth 1 2>/dev/null | head -5"
    for root in (engine.data_root, engine.exec_root):
        root.parent.chmod(0o711)
        words = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c", script.format(root)]
        assert subprocess.run(words, capture_output=True, text=True, check=False).stdout == ""
