"""The flags of `run` and `create`, as data. Source: docker CLI reference, `docker container run`."""

from __future__ import annotations

from orlop.cli.flags import Flag

__all__ = ["CREATE_FLAGS", "HEALTH_ON_FAILURE"]

_LISTS = {
    "add-host": ("", "Add a custom host-to-IP mapping (host:ip)"),
    "annotation": ("", "Add an annotation to the container (passed through to the OCI runtime)"),
    "attach": ("a", "Attach to STDIN, STDOUT or STDERR"),
    "cap-add": ("", "Add Linux capabilities"),
    "cap-drop": ("", "Drop Linux capabilities"),
    "blkio-weight-device": ("", "Block IO weight (relative device weight)"),
    "device": ("", "Add a host device to the container"),
    "device-cgroup-rule": ("", "Add a rule to the cgroup allowed devices list"),
    "device-read-bps": ("", "Limit read rate (bytes per second) from a device"),
    "device-read-iops": ("", "Limit read rate (IO per second) from a device"),
    "device-write-bps": ("", "Limit write rate (bytes per second) to a device"),
    "device-write-iops": ("", "Limit write rate (IO per second) to a device"),
    "dns": ("", "Set custom DNS servers"),
    "dns-option": ("", "Set DNS options"),
    "dns-search": ("", "Set custom DNS search domains"),
    "env": ("e", "Set environment variables"),
    "env-file": ("", "Read in a file of environment variables"),
    "expose": ("", "Expose a port or a range of ports"),
    "group-add": ("", "Add additional groups to join"),
    "label": ("l", "Set meta data on a container"),
    "label-file": ("", "Read in a line delimited file of labels"),
    "link": ("", "Add link to another container"),
    "log-opt": ("", "Log driver options"),
    "mount": ("", "Attach a filesystem mount to the container"),
    "network": ("", "Connect a container to a network"),
    "network-alias": ("", "Add network-scoped alias for the container"),
    "publish": ("p", "Publish a container's port(s) to the host"),
    "security-opt": ("", "Security Options"),
    "storage-opt": ("", "Storage driver options for the container"),
    "sysctl": ("", "Sysctl options"),
    "tmpfs": ("", "Mount a tmpfs directory"),
    "ulimit": ("", "Ulimit options"),
    "volume": ("v", "Bind mount a volume"),
    "volumes-from": ("", "Mount volumes from the specified container(s)"),
}
_STRINGS = {
    "blkio-weight": ("", "Block IO (relative weight), between 10 and 1000, or 0 to disable"),
    "cgroup-parent": ("", "Optional parent cgroup for the container"),
    "cgroupns": ("", "Cgroup namespace to use (host|private)"),
    "cidfile": ("", "Write the container ID to the file"),
    "cpuset-cpus": ("", "CPUs in which to allow execution (0-3, 0,1)"),
    "cpuset-mems": ("", "MEMs in which to allow execution (0-3, 0,1)"),
    "cpus": ("", "Number of CPUs"),
    "domainname": ("", "Container NIS domain name"),
    "entrypoint": ("", "Overwrite the default ENTRYPOINT of the image"),
    "gpus": ("", "GPU devices to add to the container ('all' to pass all GPUs)"),
    "health-cmd": ("", "Command to run to check health"),
    "health-interval": ("", "Time between running the check (ms|s|m|h)"),
    "health-start-interval": ("", "Time between running the check during the start period (ms|s|m|h)"),
    "health-start-period": ("", "Start period before the health-retries countdown starts (ms|s|m|h)"),
    "health-timeout": ("", "Maximum time to allow one check to run (ms|s|m|h)"),
    "hostname": ("h", "Container host name"),
    "ip": ("", "IPv4 address (e.g., 172.30.100.104)"),
    "ip6": ("", "IPv6 address (e.g., 2001:db8::33)"),
    "ipc": ("", "IPC mode to use"),
    "isolation": ("", "Container isolation technology"),
    "log-driver": ("", "Logging driver for the container"),
    "mac-address": ("", "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
    "memory": ("m", "Memory limit"),
    "memory-reservation": ("", "Memory soft limit"),
    "memory-swap": ("", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap"),
    "name": ("", "Assign a name to the container"),
    "pid": ("", "PID namespace to use"),
    "platform": ("", "Set platform if server is multi-platform capable"),
    "restart": ("", "Restart policy to apply when a container exits"),
    "runtime": ("", "Runtime to use for this container"),
    "shm-size": ("", "Size of /dev/shm"),
    "stop-signal": ("", "Signal to stop the container"),
    "user": ("u", "Username or UID (format: <name|uid>[:<group|gid>])"),
    "userns": ("", "User namespace to use"),
    "uts": ("", "UTS namespace to use"),
    "volume-driver": ("", "Optional volume driver for the container"),
    "workdir": ("w", "Working directory inside the container"),
}
_INTS = {
    "cpu-period": ("", "Limit CPU CFS (Completely Fair Scheduler) period"),
    "cpu-quota": ("", "Limit CPU CFS (Completely Fair Scheduler) quota"),
    "cpu-rt-period": ("", "Limit CPU real-time period in microseconds"),
    "cpu-rt-runtime": ("", "Limit CPU real-time runtime in microseconds"),
    "cpu-shares": ("c", "CPU shares (relative weight)"),
    "health-retries": ("", "Consecutive failures needed to report unhealthy"),
    "memory-swappiness": ("", "Tune container memory swappiness (0 to 100)"),
    "oom-score-adj": ("", "Tune host's OOM preferences (-1000 to 1000)"),
    "pids-limit": ("", "Tune container pids limit (set -1 for unlimited)"),
    "stop-timeout": ("", "Timeout (in seconds) to stop a container"),
}
_BOOLS = {
    "init": ("", "Run an init inside the container that forwards signals and reaps processes"),
    "interactive": ("i", "Keep STDIN open even if not attached"),
    "no-healthcheck": ("", "Disable any container-specified HEALTHCHECK"),
    "oom-kill-disable": ("", "Disable OOM Killer"),
    "privileged": ("", "Give extended privileges to this container"),
    "publish-all": ("P", "Publish all exposed ports to random ports"),
    "quiet": ("q", "Suppress the pull output"),
    "read-only": ("", "Mount the container's root filesystem as read only"),
    "rm": ("", "Automatically remove the container when it exits"),
    "tty": ("t", "Allocate a pseudo-TTY"),
}

HEALTH_ON_FAILURE = Flag(
    "health-on-failure", text="Action to take once the container turns unhealthy (none|kill|restart|stop)"
)
CREATE_FLAGS: tuple[Flag, ...] = (
    *(Flag(name, short, "list", text=text) for name, (short, text) in _LISTS.items()),
    *(Flag(name, short, text=text) for name, (short, text) in _STRINGS.items()),
    *(Flag(name, short, "int", text=text) for name, (short, text) in _INTS.items()),
    *(Flag(name, short, "bool", text=text) for name, (short, text) in _BOOLS.items()),
    Flag("pull", default="missing", text='Pull image before running ("always", "missing", "never")'),
    HEALTH_ON_FAILURE,
    Flag(
        "use-api-socket",
        kind="bool",
        text="Bind mount the engine's socket: the container is root on the host",
    ),
    Flag(
        "api-socket", text="Give the container the engine's socket with a role (read-only|build|own-children)"
    ),
    Flag("net", kind="list", is_hidden=True, text="Connect a container to a network"),
)
