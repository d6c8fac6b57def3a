from dataclasses import replace

import pytest

from fakes.containers import scenario
from orlop.base.errors import InvalidInput, NotFound
from orlop.engine.filters import Filters
from orlop.engine.requests import (
    ContainerConfig,
    CreateRequest,
    HostConfig,
    Mount,
    RestartPolicy,
    UpdateRequest,
    VolumeCreateRequest,
)
from orlop.engine.volumes import NoSuchVolume, VolumeInUse


def request(name="web", host=None, **config):
    given = ContainerConfig(**({"image": "busybox"} | config))
    return CreateRequest(given, host or HostConfig(network_mode="none"), name=name)


@scenario
async def test_a_missing_image_is_said_in_the_words_that_make_clients_pull(made):
    with pytest.raises(NotFound, match="No such image: nope"):
        await made.containers.create(request(image="nope"))

    assert made.catalog.names == {}


@scenario
async def test_an_image_that_goes_during_the_create_leaves_no_container(made):
    images, catalog = made.services.images, made.catalog
    resolve = images.resolve

    async def resolve_the_last_time(name, _platform=None):
        image = await resolve(name)
        images.is_gone = True
        return image

    images.resolve = resolve_the_last_time

    with pytest.raises(NotFound, match="No such image: busybox"):
        await made.containers.create(
            request(
                host=HostConfig(network_mode="none", binds=("/x",), mounts=(Mount("volume", target="/v"),))
            )
        )

    await catalog.load()
    assert (len(catalog), catalog.names, made.snapshots.stored) == (0, {}, {})
    assert made.volumes.list(Filters()).volumes == ()


@scenario
async def test_an_image_counts_as_used_while_a_container_is_made(made):
    seen = []
    prepare = made.snapshots.prepare

    async def prepare_and_look(*args, **options):
        seen.append(dict(made.catalog.being_made))
        return await prepare(*args, **options)

    made.snapshots.prepare = prepare_and_look
    container_id = await made.create()

    assert seen == [{container_id: made.services.images.image.id}]
    assert made.catalog.being_made == {}


@scenario
async def test_a_container_without_a_name_gets_a_friendly_one(made):
    await made.containers.create(request(name=""))

    (name,) = made.catalog.names
    assert "_" in name


@scenario
async def test_the_host_name_is_the_short_id(made):
    container_id = await made.create()

    assert made.containers.get("web").record.config.hostname == container_id[:12]


@scenario
async def test_what_would_fail_at_every_start_fails_at_the_create(made):
    for host in (
        HostConfig(cap_add=("FLY",)),
        HostConfig(sysctls={"kernel.panic": "1"}),
        HostConfig(security_opt=("apparmor=x",)),
        HostConfig(device_cgroup_rules=("all",)),
    ):
        with pytest.raises(InvalidInput):
            await made.containers.create(request(host=host))
    with pytest.raises(InvalidInput, match="No such container: none"):  # docker CLI pulls after a 404
        await made.containers.create(request(host=HostConfig(ipc_mode="container:none")))
    assert made.snapshots.stored == {}


@scenario
async def test_networks_are_looked_up_at_the_start(made):
    """A 404 of the create would be a missing image to docker's client, which would pull it."""
    for name, mode, message in (
        ("one", "container:none", "No such container: none"),
        ("two", "lan", "network lan not found"),
    ):
        await made.create(name, HostConfig(network_mode=mode))

        with pytest.raises(NotFound, match=message):
            await made.containers.start(name)


@scenario
async def test_a_mount_of_a_missing_directory_is_refused_and_a_bind_makes_it(made):
    missing = f"{made.root}/missing"
    with pytest.raises(InvalidInput, match="bind source path does not exist"):
        await made.containers.create(request(host=HostConfig(mounts=(Mount("bind", missing, "/x"),))))

    container, _ = await made.run(host=HostConfig(network_mode="none", binds=(f"{missing}:/x",)))

    assert (made.services.data_root, container.record.mounts[0].point.rw) == (made.root, True)
    with open(f"{missing}/made", "w") as file:
        file.write("")


@scenario
async def test_binds_around_our_own_state_do_not_hold_its_mounts(made):
    await made.create(host=HostConfig(network_mode="none", binds=("/:/host:rw",)))

    assert made.containers.get("web").record.mounts[0].point.propagation == "rslave"


@scenario
async def test_our_own_state_is_not_given_away_in_silence(made):
    async def warnings(host):
        return "".join((await made.containers.create(request(name="", host=host))).warnings)

    for source in (made.root, f"{made.root}/..", "/"):
        host = HostConfig(network_mode="none", binds=(f"{source}:/host",))

        assert "contains the engine's data root" in await warnings(host)
        assert "data root" not in await warnings(replace(host, binds=(f"{source}:/host:ro",)))
        assert "data root" not in await warnings(replace(host, binds=(f"{source}:/host:rw",)))
        assert "data root" not in await warnings(replace(host, privileged=True))


@scenario
async def test_volumes_come_from_another_container_read_only_if_asked(made):
    await made.create("one", HostConfig(network_mode="none", binds=("data:/data",)))
    await made.create("two", HostConfig(network_mode="none", volumes_from=("one:ro",)))

    (mount,) = made.containers.get("two").record.mounts
    assert (mount.point.name, mount.point.rw) == ("data", False)
    assert "ro" in mount.options
    assert not mount.is_anonymous


@scenario
async def test_a_volume_in_use_stays(made):
    container_id = await made.create(host=HostConfig(network_mode="none", binds=("data:/data",)))

    with pytest.raises(VolumeInUse, match=f"volume is in use - \\[{container_id}\\]"):
        await made.volumes.remove("data", force=True)
    await made.containers.remove("web")
    await made.volumes.remove("data")

    with pytest.raises(NoSuchVolume, match="get data: no such volume"):
        made.volumes.get("data")
    await made.volumes.remove("data", force=True)


@scenario
async def test_volumes_are_listed_and_pruned(made):
    await made.volumes.create(VolumeCreateRequest("kept", labels={"a": "b"}))
    await made.volumes.create(VolumeCreateRequest())
    await made.create(host=HostConfig(network_mode="none", binds=("used:/x",)))

    listed = made.volumes.list(Filters({"dangling": ["true"]}))
    assert len(listed.volumes) == 2
    removed, _ = await made.volumes.prune(Filters())
    assert len(removed) == 1
    removed, _ = await made.volumes.prune(Filters({"all": ["true"]}))
    assert list(removed) == ["kept"]
    assert [view.name for view in made.volumes.list(Filters()).volumes] == ["used"]


@scenario
async def test_hostile_volume_names_are_refused(made):
    for name in ("../x", "a/b", ".hidden", "x" * 300, "a\0b"):
        with pytest.raises(InvalidInput):
            await made.volumes.create(VolumeCreateRequest(name))
    with pytest.raises(NotFound, match='plugin "nfs" not found'):
        await made.volumes.create(VolumeCreateRequest("x", driver="nfs"))


@scenario
async def test_limits_are_changed_while_it_runs(made):
    container, task = await made.run()

    await made.containers.update(
        "web", UpdateRequest(memory=50 << 20, restart_policy=RestartPolicy("always"))
    )

    assert container.record.host.memory == 50 << 20
    assert container.record.host.memory_swap == 100 << 20
    assert container.record.host.restart_policy.name == "always"
    assert task.resources.memory_limit_bytes == 50 << 20
    with pytest.raises(InvalidInput):
        await made.containers.update("web", UpdateRequest(memory=1))


@scenario
async def test_the_pids_limit_can_be_lifted_and_stays_lifted(made):
    container, task = await made.run()
    assert container.record.host.pids_limit is None
    assert made.runtime.specs[-1].resources.pids_limit == 4096

    await made.containers.update("web", UpdateRequest(memory=50 << 20))
    assert task.resources.pids_limit == 4096
    for given in (0, -1):
        await made.containers.update("web", UpdateRequest(pids_limit=9))
        assert task.resources.pids_limit == 9
        await made.containers.update("web", UpdateRequest(pids_limit=given))
        assert task.resources.pids_limit == -1
    await made.containers.restart("web", timeout_s=0)

    assert made.runtime.specs[-1].resources.pids_limit == -1


@scenario
async def test_prune_takes_what_does_not_run(made):
    await made.create("old", labels={"keep": ""})
    await made.create("new")
    await made.run("busy")

    result = await made.containers.prune(Filters({"label!": ["keep"]}))

    assert len(result.containers_deleted) == 1
    assert result.space_reclaimed == 7
    assert sorted(made.catalog.names) == ["busy", "old"]


@scenario
async def test_a_shared_network_brings_its_host_name(made):
    await made.create("base", hostname="box", domainname="lan")
    await made.create("guest", HostConfig(network_mode="container:base"))

    config = made.containers.get("guest").record.config
    assert (config.hostname, config.domainname) == ("box", "lan")
