"""Containers with a user namespace of their own: ids, files, and what they still may not do."""

import os
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from orlop.runtime.contract import StartFailed
from orlop.runtime.spec import DeviceSpec, IdMapping, MountSpec, UserNamespaceSpec

START, COUNT = 700_000, 65536


def own(start=START, path=""):
    mapping = (IdMapping(0, start, COUNT),)
    return UserNamespaceSpec(mapping, mapping, path)


def mapped(h, *args, start=START, **fields):
    spec = h.spec(*args, user_namespace=own(start), **fields)
    return replace(spec, root=replace(spec.root, is_mapped=True))


async def output_of(h, spec):
    from runtime_harness import Output, read_all

    task, stream = await h.start_spec(spec)
    with stream:
        stdout, stderr = await read_all(stream, is_raw=spec.process.has_tty)
    record = await task.wait()
    return Output(record.exit_code, stdout, stderr, record)


def shell(containers, script, **fields):
    return containers(lambda h: output_of(h, mapped(h, "sh", "-c", script, **fields)))


def test_the_map_is_its_own_and_the_layers_belong_to_its_root(containers):
    output = shell(
        containers,
        "cat /proc/self/uid_map /proc/self/gid_map; stat -c %u:%g / /bin/busybox /home/user /etc/passwd /dev /dev/null "
        "/dev/pts /dev/shm /proc/self/status",
    )

    lines = output.text.splitlines()
    assert [line.split() for line in lines[:2]] == [["0", str(START), str(COUNT)]] * 2, output
    assert lines[2:] == ["0:0", "0:0", "1000:1000", *["0:0"] * 6]


def test_what_it_writes_has_its_own_ids_on_disk(containers, tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    script = "touch /new /v/new; chown 33:34 /new /v/new; echo x >> /etc/passwd; rm /etc/group; stat -c %u:%g /new /v/new"

    async def scenario(h):
        mounts = (MountSpec("bind", "/v", str(volume), ("rbind", "rprivate", "idmap")),)
        spec = mapped(h, "sh", "-c", script, mounts=mounts)
        return await output_of(h, spec), spec.root.upper

    output, upper = containers(scenario)

    assert output.text.split() == ["33:34"] * 2, output
    for path in (f"{upper}/new", volume / "new"):
        status = os.stat(path)
        assert (status.st_uid, status.st_gid) == (33, 34)
    assert os.stat(f"{upper}/etc/passwd").st_uid == 0
    assert os.stat(f"{upper}/etc/group").st_rdev == 0  # a whiteout


def test_a_bind_that_is_not_mapped_is_nobodys(containers, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    mounts = (MountSpec("bind", "/v", str(shared), ("rbind", "rprivate")),)

    output = shell(containers, "stat -c %u:%g /v; touch /v/x", mounts=mounts)

    assert output.text.split() == ["65534:65534"], output
    assert b"Permission denied" in output.stderr


def test_the_host_sees_high_ids_and_an_exec_gets_the_same(containers):
    async def scenario(h):
        spec = mapped(h, "sleep", "60", process={"user": "user"})
        task, stream = await h.start_spec(spec)
        stream.close()
        status = Path(f"/proc/{task.pid}/status").read_text()
        execed = await h.exec(
            task, "sh", "-c", "id -u; id -g; cat /proc/self/uid_map; echo out > /dev/stdout"
        )
        as_user = await h.exec(task, "sh", "-c", "id -u; echo out > /dev/stdout", user="user")
        in_terminal = await h.exec(task, "sh", "-c", "tty; id -u", has_tty=True)
        await task.signal(9)
        await task.wait()
        return status, execed, as_user, in_terminal

    status, execed, as_user, in_terminal = containers(scenario)

    assert f"Uid:\t{START + 1000}\t" in status
    assert execed.text.split() == ["0", "0", "0", str(START), str(COUNT), "out"], execed
    assert as_user.text.split() == ["1000", "out"], as_user
    assert in_terminal.text.split() == ["/dev/pts/0", "0"], in_terminal


def test_a_terminal_and_its_console(containers):
    output = shell(
        containers, "tty; stat -c %u /dev/console; echo hi > /dev/console", process={"has_tty": True}
    )

    assert output.text.split() == ["/dev/pts/0", "0", "hi"], output


@pytest.mark.parametrize(
    "script",
    [
        "mknod /tmp/disk b 254 0",
        "mount -t tmpfs none /mnt",
        "mount -t ext4 /dev/vda /tmp",
        "echo core > /proc/sys/kernel/core_pattern",
        "echo b > /proc/sysrq-trigger",
        "umount /proc/sys",
        "mount -o remount,rw /proc/sys",
        "hostname other",
        "chown 70000:0 /tmp",
        "touch /sys/fs/cgroup/x",
        "cat /proc/kcore | grep .",
        "echo 0 700000 1 > /proc/self/uid_map",
        "unshare -m true",
    ],
)
def test_nothing_of_the_host_is_in_reach(containers, script):
    output = shell(containers, script)

    assert output.code != 0, output


def test_root_with_every_capability_has_them_over_its_own_namespaces_only(containers):
    words = "SYS_ADMIN NET_ADMIN MKNOD SYS_MODULE SYS_TIME DAC_READ_SEARCH CHOWN SETUID"
    names = {"capabilities": tuple(words.split())}
    script = (
        "mkdir -p /m; mount -t tmpfs none /m && echo mounted; ip link add d0 type dummy 2>/dev/null; hostname other && echo named;"
        "mknod /tmp/disk b 254 0 || echo no node;"
        "umount -l /proc/sys && echo bared; echo x > /proc/sys/kernel/core_pattern || echo no pattern;"
        "mount -t ext4 /dev/vda /tmp || echo no disk"
    )

    output = shell(containers, script, process={**names, "has_seccomp": False})

    words = output.text.splitlines()
    assert {"mounted", "named", "no node", "no pattern", "no disk"} <= set(words), output


def test_device_nodes_work_wherever_they_are(containers):
    devices = (
        DeviceSpec("/dev/net/null", "c", 1, 3, uid=0, gid=5),
        DeviceSpec("/srv/zero", "c", 1, 5),
    )
    script = "stat -c '%t:%T %u:%g' /dev/net/null /srv/zero; echo x > /dev/net/null && head -c 3 /srv/zero | wc -c; ls -ld /dev/net | cut -c1-3"

    output = shell(containers, script, devices=devices)

    assert output.text.splitlines() == ["1:3 0:5", "1:5 0:0", "3", "drw"], output


def test_limits_sysctls_name_and_shared_memory(containers):
    output = shell(
        containers,
        "ulimit -n; hostname; df -m /dev/shm | tail -1 | awk '{print $2}'; cat /proc/sys/net/ipv4/ip_unprivileged_port_start;"
        "cat /proc/sys/net/ipv4/ping_group_range; cat /proc/self/cgroup | grep pids; ping -c 1 -w 2 127.0.0.1 | grep -c ttl",
        hostname="ship",
        shm_size_bytes=8 << 20,
        sysctls={"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": f"0 {COUNT - 1}"},
        process={"rlimits": {"nofile": (20, 444)}},
    )

    lines = output.text.splitlines()
    assert lines[:5] == ["20", "ship", "8", "0", f"0\t{COUNT - 1}"], output
    assert lines[5].endswith(":/"), output
    assert lines[6] == "1"


def test_a_read_only_root_and_an_init(containers):
    async def scenario(h):
        spec = mapped(h, "sh", "-c", "touch /x; id -u; cat /proc/1/comm", has_init=True)
        return await output_of(h, replace(spec, root=replace(spec.root, is_read_only=True)))

    output = containers(scenario)

    assert b"Read-only file system" in output.stderr
    assert output.text.split() == ["0", "orlop-init"], output


def test_a_second_container_joins_the_first_ones_namespaces(containers):
    async def scenario(h):
        spec = mapped(h, "sleep", "60", ipc="shareable")
        task, stream = await h.start_spec(spec)
        stream.close()
        base = f"/proc/{task.pid}/ns"
        joined = h.spec(
            "sh",
            "-c",
            "cat /proc/self/uid_map; readlink /proc/self/ns/net; echo $$; kill -0 1 && stat -c %u /bin; mount | grep -c ' /sys '",
            user_namespace=own(path=f"{base}/user"),
            network=f"{base}/net",
            ipc=f"{base}/ipc",
            pid=f"{base}/pid",
        )
        output = await output_of(h, replace(joined, root=replace(joined.root, is_mapped=True)))
        alone = h.spec("sh", "-c", "echo $$", user_namespace=own(path=f"{base}/user"))
        second = await output_of(h, replace(alone, root=replace(alone.root, is_mapped=True)))
        net = os.readlink(f"{base}/net")
        await task.signal(9)
        await task.wait()
        return output, second, net

    output, second, net = containers(scenario)

    words = output.text.split()
    assert words[:4] == ["0", str(START), str(COUNT), net], output
    assert int(words[4]) > 1
    assert words[5:] == ["0", "1"]
    assert second.text.split() == ["1"]


def test_a_file_system_that_cannot_be_mapped_is_refused_with_its_kind(containers, tmp_path):
    async def scenario(h):
        spec = h.spec("true", user_namespace=own())
        lower = tmp_path / "merged"
        lower.mkdir()
        layers = f"lowerdir={h.rootfs / 'bin'}:{h.rootfs / 'etc'}"
        subprocess.run(["mount", "-t", "overlay", "o", "-o", layers, lower], check=True)
        try:
            mounts = (MountSpec("bind", "/v", str(lower), ("rbind", "idmap")),)
            return await output_of(h, replace(spec, mounts=mounts, root=replace(spec.root, is_mapped=True)))
        finally:
            subprocess.run(["umount", lower], check=True)

    with pytest.raises(StartFailed, match=r"overlay has no idmapped mounts"):
        containers(scenario)


def test_the_kernels_own_files_may_be_bound_as_they_are(containers):
    mounts = (MountSpec("bind", "/host-sys", "/sys", ("rbind", "ro", "rprivate", "idmap")),)

    assert shell(containers, "stat -c %u /host-sys/kernel", mounts=mounts).text.split() == ["65534"]


def test_a_user_beyond_the_map_is_refused(containers):
    with pytest.raises(StartFailed):
        shell(containers, "true", process={"user": "70000"})


def test_a_host_side_that_fails_leaves_nothing(containers):
    async def scenario(h):
        spec = mapped(h, "true", mounts=(MountSpec("bind", "/v", "/nowhere/at/all", ("rbind",)),))
        with pytest.raises(StartFailed, match="No such file"):
            await output_of(h, spec)
        with pytest.raises(StartFailed, match="maps no uid 0"):
            await output_of(h, replace(h.spec("true"), user_namespace=UserNamespaceSpec((), ())))

    containers(scenario)


def test_capabilities_of_a_layers_file_count_inside(containers, tmp_path):
    net_raw = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # struct vfs_cap_data: revision 2, effective

    async def scenario(h):
        layer = tmp_path / "layer" / "bin"
        layer.mkdir(parents=True)
        shutil.copy(h.rootfs / "bin" / "busybox", layer / "grep-raw")
        os.setxattr(layer / "grep-raw", "security.capability", net_raw)
        (layer / "grep").symlink_to("grep-raw")
        spec = mapped(h, "/bin/grep", "CapEff", "/proc/self/status", process={"user": "user"})
        lowers = (str(layer.parent), *spec.root.lowers)
        return await output_of(h, replace(spec, root=replace(spec.root, lowers=lowers)))

    output = containers(scenario)

    assert int(output.text.split()[1], 16) == 1 << 13, output
