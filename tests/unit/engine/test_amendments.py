import os
from dataclasses import replace

import pytest

from fakes.containers import Plant, scenario
from orlop.base import failpoints
from orlop.base.errors import InvalidInput
from orlop.engine.amendments import amended
from orlop.engine.extensions import Additions, Amendment, Removals
from orlop.engine.filters import Filters
from orlop.engine.idmaps import IdMap
from orlop.engine.inspection import inspect
from orlop.engine.lifecycle import Status
from orlop.engine.model import MountRecord, Settings
from orlop.engine.requests import (
    NO_EXTRAS,
    ContainerConfig,
    HealthConfig,
    HostConfig,
    Mount,
    PortBinding,
)
from orlop.engine.services import container_paths
from orlop.engine.views import MountPoint

POINT = MountRecord(MountPoint("volume", name="data", destination="/data"))
OLD = Settings(
    ContainerConfig(
        env=("A=1", "B=2"), labels={"x": "y"}, exposed_ports=frozenset({"80/tcp"}), volumes=frozenset({"/v"})
    ),
    ("data:/data",),
    (Mount("bind", "/src", "/m"),),
    {"/t": "size=1m"},
    {"80/tcp": (PortBinding("", "8080"),)},
    (
        POINT,
        MountRecord(MountPoint("tmpfs", destination="/t")),
        MountRecord(MountPoint("bind", destination="/m")),
    ),
    NO_EXTRAS,
)


def changed(add=None, remove=None, mode="bridge", **more):
    return amended(OLD, Amendment(add, remove, **more), network_mode=mode)


def test_nothing_asked_is_nothing_changed():
    assert changed() == OLD.__class__(
        **{name: getattr(OLD, name) for name in OLD.__slots__ if name != "config"},
        config=ContainerConfig(
            env=("A=1", "B=2"),
            labels={"x": "y"},
            exposed_ports=frozenset({"80/tcp"}),
            volumes=frozenset({"/v"}),
        ),
    )


def test_variables_keep_their_place_or_go_to_the_end():
    new = changed(Additions(env=("A=9", "C=3")), Removals(env=("B",)))

    assert new.config.env == ("A=9", "C=3")


def test_labels_are_merged():
    assert changed(Additions(labels={"n": "1"}), Removals(labels=("x",))).config.labels == {"n": "1"}


def test_a_mount_goes_with_everything_that_asked_for_it():
    new = changed(remove=Removals(mounts=("/data/", "/t", "/m")))

    assert (new.binds, new.mounts, new.tmpfs, new.points) == (None, None, None, ())


def test_ports_are_added_to_what_is_published_and_exposed():
    add = Additions(port_bindings={"80": (PortBinding("", "8081"),), "53/udp": None})

    new = changed(add)

    assert new.port_bindings == {
        "80/tcp": (PortBinding("", "8080"), PortBinding("", "8081")),
        "53/udp": (PortBinding(),),
    }
    assert new.config.exposed_ports == frozenset({"80/tcp", "53/udp"})


def test_of_the_health_check_only_what_is_given_changes():
    check = HealthConfig(test=("CMD", "true"), interval=5_000_000_000)
    first = changed(healthcheck=check).config.healthcheck
    assert first == check
    assert changed(healthcheck=HealthConfig(test=("NONE",))).config.healthcheck.test == ("NONE",)


@pytest.mark.parametrize(
    ("add", "remove", "mode"),
    [
        (Additions(env=("A",)), None, "bridge"),
        (Additions(env=("=1",)), None, "bridge"),
        (Additions(env=("A=\0",)), None, "bridge"),
        (None, Removals(env=("Z",)), "bridge"),
        (None, Removals(labels=("z",)), "bridge"),
        (None, Removals(mounts=("/nowhere",)), "bridge"),
        (None, Removals(ports=("81/tcp",)), "bridge"),
        (None, Removals(ports=("x",)), "bridge"),
        (Additions(port_bindings={"0/tcp": None}), None, "bridge"),
        (Additions(port_bindings={"70000/tcp": None}), None, "bridge"),
        (Additions(port_bindings={"80/tcp": (PortBinding("", "http"),)}), None, "bridge"),
        (Additions(port_bindings={"80/tcp": (PortBinding("", "80-99999"),)}), None, "bridge"),
        (Additions(port_bindings={"80/tcp": None}), None, "container:x"),
        (Additions(labels={"orlop.health-on-failure": "explode"}), None, "bridge"),
    ],
)
def test_what_makes_no_sense_is_refused(add, remove, mode):
    with pytest.raises(InvalidInput):
        changed(add, remove, mode)


@scenario
async def test_a_stopped_container_is_changed_at_once(made):
    await made.create(env=("A=1",))

    warnings = await made.containers.amend("web", Amendment(Additions(env=("B=2",), binds=("vol:/data",))))

    record = made.containers.get("web").record
    assert warnings == []
    assert "B=2" in record.config.env
    assert record.mounts[0].point.name == "vol"
    assert made.volumes.users("vol") == (record.id,)


@scenario
async def test_a_running_container_is_changed_by_its_next_start(made):
    container, task = await made.run(env=("A=1",))

    warnings = await made.containers.amend("web", Amendment(Additions(env=("B=2",), binds=("/data",))))

    assert "started again" in warnings[0]
    assert "B=2" not in container.record.config.env
    view = inspect(container, container_paths(made.services, container.id))
    assert list(view.orlop["Pending"]) == ["Env", "Mounts"]
    volume = container.record.pending.points[0].point.name
    assert made.volumes.users(volume) == (container.id,)  # a prune leaves it alone
    task.end()
    await made.settle()
    await made.containers.start("web")
    assert "B=2" in made.runtime.specs[-1].process.env
    assert made.runtime.specs[-1].mounts[-1].target == "/data"
    assert container.record.pending is None
    assert inspect(container, container_paths(made.services, container.id)).orlop is None


@scenario
async def test_what_a_create_says_of_a_mount_an_amendment_says_too(made):
    await made.create()
    source = f"{made.root}/.."

    warnings = await made.containers.amend("web", Amendment(Additions(binds=(f"{source}:/host",))))
    again = await made.containers.amend("web", Amendment(Additions(env=("B=2",))))

    assert "contains the engine's data root" in warnings[0]
    assert again == []
    container = made.containers.get("web")
    container.record = replace(container.record, id_map=IdMap((), ()))
    with pytest.raises(InvalidInput, match="shared mount propagation is incompatible"):
        await made.containers.amend("web", Amendment(Additions(binds=("/:/shared:rshared",))))


@scenario
async def test_later_amendments_build_on_the_pending_one(made):
    container, _ = await made.run()
    await made.containers.amend("web", Amendment(Additions(env=("A=1",))))
    await made.containers.amend("web", Amendment(Additions(env=("B=2",)), Removals(env=("A",))))

    await made.containers.restart("web")

    env = container.record.config.env
    assert "B=2" in env
    assert "A=1" not in env


@scenario
async def test_a_refused_amendment_leaves_nothing_behind(made):
    await made.create(host=HostConfig(network_mode="none", binds=("vol:/data",)))

    mounts = (Mount("volume", "", "/data"), Mount("volume", "", "/more"))
    with pytest.raises(InvalidInput, match="Duplicate mount point: /data"):
        await made.containers.amend("web", Amendment(Additions(mounts=mounts)))

    assert [volume.name for volume in made.volumes.list(Filters()).volumes] == ["vol"]
    assert made.containers.get("web").record.pending is None


@scenario
async def test_a_volume_that_loses_its_mount_is_kept(made):
    await made.create(host=HostConfig(network_mode="none", binds=("/data",)))
    name = made.containers.get("web").record.mounts[0].point.name

    await made.containers.amend("web", Amendment(Additions(tmpfs={"/data": ""}), Removals(mounts=("/data",))))
    await made.containers.remove("web", volumes=True)
    await made.settle()

    assert made.volumes.find(name) is not None
    assert os.path.isdir(made.volumes.path(name))


@scenario
async def test_what_is_pending_survives_the_engine(made):
    container, task = await made.run()
    await made.containers.amend("web", Amendment(Additions(env=("B=2",))))
    await made.catalog.flush()

    await made.background.close()
    second = Plant(made.root, made.db)
    second.runtime.found[container.id] = task
    os.makedirs(container_paths(made.services, container.id).run_dir, exist_ok=True)
    second.snapshots.stored = made.snapshots.stored
    await second.catalog.load()
    await second.reconciler.run()
    adopted = second.containers.get("web")
    assert adopted.status is Status.RUNNING
    await second.containers.restart("web")

    assert "B=2" in second.runtime.specs[-1].process.env
    await second.close(keeps_database=True)


@pytest.mark.parametrize(
    ("point", "is_done"), [("container.update.before-row", False), ("container.update.row-written", True)]
)
def test_an_amendment_happens_wholly_or_not_at_all(tmp_path, point, is_done):
    @scenario
    async def interrupted(made):
        await made.create(env=("A=1",))
        change = Amendment(Additions(env=("B=2",), binds=("/data",)))
        failpoints.configure(f"{point}=error")
        try:
            with pytest.raises(OSError, match="failpoint"):
                await made.containers.amend("web", change)
        finally:
            failpoints.configure("")
        await made.background.close()
        second = Plant(made.root, made.db)
        await second.catalog.load()
        await second.volumes.load()
        record = second.containers.get("web").record
        assert ("B=2" in record.config.env) is is_done
        assert len(record.mounts) == is_done
        assert len(second.volumes.list(Filters()).volumes) == is_done
        await second.close(keeps_database=True)

    interrupted(tmp_path)
