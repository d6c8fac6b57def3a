import json

from orlop.runtime.spec import (
    AttachSpec,
    ContainerSpec,
    DeviceSpec,
    ExecSpec,
    ExitRecord,
    LogSpec,
    MountSpec,
    ProcessSpec,
    ResourceSpec,
    RootSpec,
    to_json,
)
from orlop.runtime.speccodec import (
    attach_spec_from_json,
    container_spec_from_json,
    exec_spec_from_json,
    exit_record_from_json,
    resource_spec_from_json,
)

PROCESS = ProcessSpec(
    ("sh", "-c", "caf\udce9"),
    env=("A=b",),
    rlimits={"nofile": (1, 2)},
    seccomp_profile={"defaultAction": "x"},
    tty_size=(3, 4),
)


def travel(value):
    return json.loads(json.dumps(to_json(value)))


def test_a_container_spec_survives_the_way():
    spec = ContainerSpec(
        id="a" * 64,
        run_dir="/r",
        root=RootSpec(("/l1", "/l2"), "/u", "/w", is_read_only=True),
        process=PROCESS,
        log=LogSpec("local", "/log", 1, 2),
        mounts=(MountSpec("bind", "/t", "/s", ("ro",)),),
        devices=(DeviceSpec("/dev/fuse", "c", 10, 229),),
        masked_paths=(),
        sysctls={"net.x": "1"},
        resources=ResourceSpec(memory_limit_bytes=5, pids_limit=-1),
        has_init=True,
    )

    assert container_spec_from_json(travel(spec)) == spec


def test_the_smaller_values_survive_too():
    for value, read in (
        (ExecSpec("e", PROCESS, is_privileged=True), exec_spec_from_json),
        (AttachSpec(True, False, True), attach_spec_from_json),
        (ExitRecord(3, 4, error="x"), exit_record_from_json),
        (ResourceSpec(nano_cpus=1), resource_spec_from_json),
    ):
        assert read(travel(value)) == value


def test_keys_of_a_newer_version_are_passed_over():
    data = travel(ExecSpec("e", PROCESS)) | {"from_the_future": 1}
    data["process"]["also"] = [1]

    assert exec_spec_from_json(data) == ExecSpec("e", PROCESS)
