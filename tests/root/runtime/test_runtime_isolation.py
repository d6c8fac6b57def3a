"""What a container sees and may do."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from runtime_harness import read_until

from orlop.runtime.contract import StartFailed
from orlop.runtime.rundir import read_record
from orlop.runtime.spec import MountSpec, ResourceSpec

pytestmark = pytest.mark.root

STATUS = "grep -E '^(Cap|Seccomp:|NoNew|Groups|Uid|Gid)' /proc/self/status"


def status(output):
    return dict(line.split(":\t", 1) for line in output.text.splitlines())


def test_capabilities_are_dockers_fourteen(containers):
    found = status(containers(lambda h: h.shell(STATUS)))

    assert found["CapBnd"] == found["CapEff"] == found["CapPrm"] == "00000000a80425fb"
    assert found["CapInh"] == found["CapAmb"] == "0000000000000000"
    assert found["Seccomp"] == "2"
    assert found["NoNewPrivs"] == "0"


def test_a_user_has_no_effective_capabilities_but_all_groups(containers):
    found = status(containers(lambda h: h.shell(STATUS, process={"user": "user", "no_new_privileges": True})))

    assert found["CapEff"] == found["CapPrm"] == "0000000000000000"
    assert found["CapBnd"] == "00000000a80425fb"
    assert found["Uid"].split() == ["1000"] * 4
    assert found["Groups"].split() == ["1000", "2000"]
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")


def test_home_comes_from_passwd_and_streams_belong_to_the_user(containers):
    output = containers(lambda h: h.shell("echo $HOME; echo again >/dev/stdout", process={"user": "user"}))

    assert output.text == "/home/user\nagain\n"


def test_only_the_standard_descriptors_are_open(containers):
    output = containers(lambda h: h.shell("ls /proc/1/fd; true"))

    assert output.text.split() == ["0", "1", "2"]


def test_nothing_of_the_host_is_mounted_or_running(containers):
    output = containers(lambda h: h.shell("cat /proc/self/mountinfo; ls -d /proc/[0-9]* | wc -l"))

    *mounts, count = output.text.splitlines()
    # The overlay's options name layers; targets and sources of mounts never show the host.
    assert all(line.split()[4].startswith(("/", "/proc", "/dev", "/sys")) for line in mounts)
    assert not [line for line in mounts if " shared:" in line or " master:" in line]
    assert int(count) <= 4


def test_masked_and_read_only_paths(containers):
    script = """
        cat /proc/timer_list | wc -c; cat /proc/keys | wc -c; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v : | grep . | wc -l
        echo x > /proc/sys/kernel/hostname; touch /sys/x
        stat -c '%t:%T' /proc/keys; chmod 600 /proc/keys
    """
    output = containers(lambda h: h.shell(script))

    assert output.text.split() == ["0", "0", "0", "1:3"]
    assert output.stderr.count(b"Read-only file system") == 3


def test_devices_are_the_default_ones_and_no_other_can_be_opened(containers):
    output = containers(
        lambda h: h.shell(
            "ls /dev; mknod /tmp/disk b 8 0 && cat /tmp/disk; mknod /tmp/mem c 1 1 && cat /tmp/mem; head -c 4 /dev/zero | wc -c"
        )
    )

    names = output.text.split()
    assert names[-1] == "4"
    core = ["core"] if Path("/proc/kcore").exists() else []
    assert set(names[:-1]) == set(core) | set(
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
    )
    assert output.stderr.count(b"Operation not permitted") == 2


def test_host_name_shm_size_and_cgroup_mount(containers):
    output = containers(
        lambda h: h.shell(
            "hostname; df -m /dev/shm | tail -1; touch /sys/fs/cgroup/x; cat /proc/self/cgroup",
            hostname="ship",
            shm_size_bytes=8 << 20,
        )
    )

    lines = output.text.splitlines()
    assert lines[0] == "ship"
    assert lines[1].split()[1] == "8"
    assert b"Read-only file system" in output.stderr
    assert {line.split(":")[2] for line in lines[2:] if "systemd" not in line} == {"/"}


def test_loopback_is_up_and_alone(containers):
    output = containers(lambda h: h.shell("ip -o link; ping -c 1 -w 2 127.0.0.1 >/dev/null && echo pong"))

    assert output.text.count("\n") == 2
    assert "UP" in output.text
    assert output.text.endswith("pong\n")


def test_namespaces_are_not_the_hosts(containers):
    output = containers(
        lambda h: h.shell("cd /proc/self/ns; for n in cgroup ipc mnt net pid uts; do readlink $n; done")
    )

    host = {os.readlink(f"/proc/self/ns/{name}") for name in ("cgroup", "ipc", "mnt", "net", "pid", "uts")}
    assert len(set(output.text.split())) == 6
    assert not set(output.text.split()) & host


def test_host_namespaces_when_asked_for(containers):
    async def scenario(h):
        script = "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts; readlink /proc/self/ns/pid"
        return await h.shell(script, network="host", ipc="host", uts="host", pid="host")

    output = containers(scenario)

    assert output.text.split() == [
        os.readlink(f"/proc/self/ns/{name}") for name in ("net", "ipc", "uts", "pid")
    ]


def test_joining_the_namespaces_of_another_container(containers):
    async def scenario(h):
        first, stream = await h.start("sleep", "100")
        stream.close()
        base = f"/proc/{first.pid}/ns"
        wanted = [os.readlink(f"{base}/{name}") for name in ("net", "ipc", "pid")]
        script = "for n in net ipc pid; do readlink /proc/self/ns/$n; done"
        output = await h.shell(script, network=f"{base}/net", ipc=f"{base}/ipc", pid=f"{base}/pid")
        await first.signal(9)
        await first.wait()
        return wanted, output

    wanted, output = containers(scenario)

    assert output.text.split() == wanted


def test_shared_memory_comes_with_the_joined_ipc_namespace(containers):
    async def scenario(h):
        first, stream = await h.start(
            "sh", "-c", "echo together > /dev/shm/x; echo ready; sleep 100", ipc="shareable"
        )
        with stream:
            await read_until(stream, b"ready")
        output = await h.shell("cat /dev/shm/x; echo back > /dev/shm/y", ipc=f"/proc/{first.pid}/ns/ipc")
        seen = await h.exec(first, "cat", "/dev/shm/y")
        await first.signal(9)
        await first.wait()
        return output, seen

    output, seen = containers(scenario)

    assert (output.text, seen.text) == ("together\n", "back\n")


def test_unshare_and_unknown_calls_are_refused_by_the_filter(containers):
    output = containers(lambda h: h.shell("unshare -m true; echo $?; unshare -U true; echo $?"))

    assert output.text.split() == ["1", "1"]
    assert b"Operation not permitted" in output.stderr


def test_privileged_has_all_capabilities_devices_and_no_filter(containers):
    output = containers(
        lambda h: h.shell(
            STATUS + "; touch /sys/fs/cgroup/x 2>/dev/null; mount -t tmpfs x /tmp && echo mounted",
            is_privileged=True,
            process={"capabilities": (), "has_seccomp": False},
        )
    )

    assert "Seccomp:\t0" in output.text
    assert output.text.endswith("mounted\n")


def test_binds_tmpfs_and_their_options(containers, tmp_path):
    source = tmp_path / "shared"
    source.mkdir()
    (source / "file").write_text("from the host\n")
    mounts = (
        MountSpec("bind", "/data/in", str(source), ("rbind", "ro", "rprivate")),
        MountSpec("bind", "/data/rw", str(source), ("rbind", "rw", "rprivate")),
        MountSpec("bind", "/etc/hosts", str(source / "file"), ("rbind", "rprivate")),
        MountSpec("tmpfs", "/scratch", "", ("size=1m", "mode=0700", "exec")),
    )
    script = """
        cat /data/in/file /etc/hosts; touch /data/in/x; echo new > /data/rw/new
        df -m /scratch | tail -1 | awk '{print $2}'; stat -c %a /scratch; grep ' /scratch ' /proc/mounts
    """

    output = containers(lambda h: h.shell(script, mounts=mounts))

    lines = output.text.splitlines()
    assert lines[:4] == ["from the host", "from the host", "1", "700"]
    assert "nosuid,nodev" in lines[4]
    assert "noexec" not in lines[4]
    assert b"Read-only file system" in output.stderr
    assert (source / "new").read_text() == "new\n"


def test_a_read_only_bind_is_read_only_in_every_mount_below(containers, tmp_path):
    (tmp_path / "shared/sub").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "x", tmp_path / "shared/sub"], check=True)
    try:
        (tmp_path / "shared/sub/kept").write_text("kept\n")
        mounts = (MountSpec("bind", "/in", str(tmp_path / "shared"), ("rbind", "ro", "rprivate")),)
        output = containers(lambda h: h.shell("cat /in/sub/kept; echo x > /in/sub/new", mounts=mounts))
    finally:
        subprocess.run(["umount", tmp_path / "shared/sub"], check=True)

    assert output.text == "kept\n"
    assert b"Read-only file system" in output.stderr


def test_links_in_the_image_do_not_lead_mounts_to_the_host(containers, tmp_path):
    canary = tmp_path / "canary"
    canary.mkdir()
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "data").symlink_to(canary)
    (evil / "up").symlink_to("../../../../../../../../" + str(canary))
    source = tmp_path / "source"
    source.mkdir()
    mounts = (
        MountSpec("bind", "/data/sub", str(source), ("rbind",)),
        MountSpec("tmpfs", "/up/sub", "", ()),
    )

    async def scenario(h):
        spec = h.spec("ls", mounts=mounts)

        spec = replace(spec, root=replace(spec.root, lowers=(str(evil), *spec.root.lowers)))
        task = await h.runtime.start(spec)
        return (await task.wait()).exit_code

    assert containers(scenario) == 0
    assert list(canary.iterdir()) == []


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_an_image_with_a_link_for_a_system_directory_is_refused(containers, tmp_path, name):
    canary = tmp_path / "canary"
    canary.mkdir()
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / name).symlink_to(canary)

    async def scenario(h):

        spec = h.spec("true")
        await h.start_spec(replace(spec, root=replace(spec.root, lowers=(str(evil), *spec.root.lowers))))

    with pytest.raises(StartFailed, match="must be mounted on ordinary directory"):
        containers(scenario)
    assert list(canary.iterdir()) == []


def test_a_mount_inside_proc_is_refused(containers, tmp_path):
    mounts = (MountSpec("bind", "/proc/sys", str(tmp_path), ("rbind",)),)

    with pytest.raises(StartFailed, match="cannot be mounted because it is inside /proc"):
        containers(lambda h: h.run("true", mounts=mounts))


@pytest.mark.parametrize("cwd", ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/self/fd/10"])
def test_no_working_directory_outside_of_the_root(containers, cwd):
    with pytest.raises(StartFailed):
        containers(lambda h: h.run("true", process={"cwd": cwd}))


def test_a_missing_working_directory_is_made(containers):
    output = containers(
        lambda h: h.shell("pwd; stat -c %u:%a .", process={"cwd": "/a/new/place", "user": "user"})
    )

    assert output.text.split() == ["/a/new/place", "0:755"]


def test_interpreter_cannot_be_written_through_proc_exe(containers):
    async def scenario(h):
        task, stream = await h.start("sh", "-c", "sleep 100", has_init=True)
        stream.close()
        # Pid 1 is our interpreter here: the worst that a container can get at.
        output = await h.exec(
            task, "sh", "-c", "echo x > /proc/1/exe; ls -l /proc/1/exe >/dev/null && echo seen"
        )
        await task.signal(9)
        await task.wait()
        return output

    output = containers(scenario)

    assert b"Permission denied" in output.stderr or b"Read-only" in output.stderr


@pytest.mark.parametrize("way", ["entrypoint", "shebang", "link", "loader"])
def test_the_interpreter_is_read_only_to_an_image_that_executes_it(containers, tmp_path, way):
    """CVE-2019-5736: the image makes init execute its own binary, and takes its loader's place."""
    binary = Path(os.path.realpath(sys.executable))
    before = hashlib.sha256(binary.read_bytes()).hexdigest()
    evil = tmp_path / "evil"
    (evil / "bin").mkdir(parents=True)
    (evil / "bin/script").write_text("#!/proc/self/exe\n")
    (evil / "bin/script").chmod(0o755)
    (evil / "bin/link").symlink_to("/proc/self/exe")
    if way == "loader":
        for library in loaded_by(binary):
            (evil / library.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, evil / library.lstrip("/"))
    program = {"entrypoint": "/proc/self/exe", "loader": "/proc/self/exe", "shebang": "/bin/script"}
    # Opened for reading first, as the exploit does; the mount is what keeps it from writing later.
    code = (
        "import os, sys; fd = os.open('/proc/self/exe', os.O_RDONLY); "
        "os.fstatvfs(fd).f_flag & os.ST_RDONLY or sys.exit(1)\n"
        "try: os.open(f'/proc/self/fd/{fd}', os.O_WRONLY)\n"
        "except OSError: sys.exit(77)"
    )
    library = os.path.dirname(os.__file__)
    mounts = (MountSpec("bind", library, library, ("rbind", "ro")),) if way == "loader" else ()

    async def scenario(h):
        spec = h.spec(program.get(way, "/bin/link"), "-I", "-S", "-c", code, mounts=mounts)
        spec = replace(spec, root=replace(spec.root, lowers=(str(evil), *spec.root.lowers)))
        try:
            task = await h.runtime.start(spec)
        except StartFailed:
            return None
        return (await task.wait()).exit_code

    assert containers(scenario) == (77 if way == "loader" else None)
    assert hashlib.sha256(binary.read_bytes()).hexdigest() == before


def loaded_by(binary):
    shown = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
    return [word for word in shown.split() if word.startswith("/")]


def test_read_only_root(containers):
    async def scenario(h):

        spec = h.spec("sh", "-c", "touch /x; touch /dev/shm/ok && echo ok")
        task, stream = await h.start_spec(replace(spec, root=replace(spec.root, is_read_only=True)))
        with stream:
            seen = await read_until(stream, b"ok\n")
        await task.wait()
        return seen

    assert b"Read-only file system" in containers(scenario)


def test_sysctls_are_set_in_the_containers_namespaces(containers):
    sysctls = {"net.ipv4.ip_unprivileged_port_start": "0", "kernel.msgmax": "4242"}

    output = containers(
        lambda h: h.shell(
            "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax", sysctls=sysctls
        )
    )

    assert output.text.split() == ["0", "4242"]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("kernel.core_pattern", {}),
        ("vm.swappiness", {}),
        ("net.ipv4.ip_forward", {"network": "host"}),
        ("kernel.msgmax", {"ipc": "host"}),
        ("net..core", {}),
        ("net/../kernel/core_pattern", {}),
        ("fs.mqueue/../../kernel/core_pattern", {}),
    ],
)
def test_sysctls_that_would_change_the_host_are_refused(containers, name, fields):
    before = Path("/proc/sys/kernel/core_pattern").read_text()

    with pytest.raises(StartFailed, match="is not in a separate kernel namespace"):
        containers(lambda h: h.run("true", sysctls={name: "1"}, **fields))

    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_limits_of_a_process(containers):
    output = containers(
        lambda h: h.shell("ulimit -n; ulimit -c", process={"rlimits": {"nofile": (100, 200), "core": (0, 0)}})
    )

    assert output.text.split() == ["100", "0"]


def test_fewer_open_files_than_a_start_takes(containers):
    output = containers(lambda h: h.shell("ulimit -n; ulimit -Hn", process={"rlimits": {"nofile": (4, 6)}}))

    assert output.text.split() == ["4", "6"], output


def test_out_of_memory_kills_the_container_and_is_told(containers):
    async def scenario(h):
        resources = ResourceSpec(memory_limit_bytes=32 << 20, memory_swap_bytes=32 << 20)
        return await h.shell("tail -c 200m /dev/zero | wc -c; exit 9", resources=resources)

    output = containers(scenario)

    assert output.record.is_oom_killed


def test_pids_limit_holds_a_fork_bomb(containers):
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done; wait; echo end"

    output = containers(lambda h: h.shell(script, resources=ResourceSpec(pids_limit=8)))

    assert b"fork" in output.stderr


def test_orphans_are_reaped_by_our_init(containers):
    script = "(sleep 0.2 & exec true) ; sh -c 'sleep 0.1 & exit' ; sleep 0.6; ps -o pid,stat,args; exec true"

    output = containers(lambda h: h.shell(script, has_init=True))

    assert output.code == 0
    assert " Z " not in output.text


def test_processes_say_what_they_are(containers):
    async def scenario(h):
        spec = h.spec("sleep", "1000", has_init=True)
        task = await h.runtime.start(spec)
        supervisor = read_record(spec.run_dir).supervisor_pid
        titles = [Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") for pid in (supervisor, task.pid)]
        await task.signal(9)
        await task.wait()
        return spec.id, titles

    container, titles = containers(scenario)

    assert titles == [f"orlop-supervisor {container[:12]}".encode(), b"orlop-init"]


def test_init_forwards_signals_and_the_exit_code(containers):
    async def scenario(h):
        task, stream = await h.start(
            "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done", has_init=True
        )
        with stream:
            await read_until(stream, b"ready")
            await task.signal(15)
            return await task.wait()

    assert containers(scenario).exit_code == 9


def test_a_hostile_passwd_is_refused_by_size(containers, tmp_path):
    big = tmp_path / "big"
    (big / "etc").mkdir(parents=True)
    with open(big / "etc/passwd", "wb") as file:
        os.truncate(file.fileno(), 2 << 30)

    async def scenario(h):

        spec = h.spec("true")
        await h.start_spec(replace(spec, root=replace(spec.root, lowers=(str(big), *spec.root.lowers))))

    with pytest.raises(StartFailed, match="larger than"):
        containers(scenario)
