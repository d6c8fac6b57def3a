"""The image service: lists, filters, what `rmi` and `prune` do and say."""

import asyncio

import pytest
from image_world import chunks, layer_tar

from orlop.base.errors import InvalidInput, OrlopError
from orlop.engine.events import EventBus
from orlop.engine.filters import Filters
from orlop.engine.image_archives import ImportRequest
from orlop.engine.image_filters import matches_glob
from orlop.engine.images import Images
from orlop.images.model import ImageNotFound
from orlop.images.removal import ImageInUse, ImageUser
from orlop.oci.digest import digest_of
from orlop.oci.platform import Platform
from orlop.store.collect import Collector
from orlop.wire import gojson


class Service:
    def __init__(self, world):
        self.world = world
        self.containers = []
        self.bus = EventBus(world.clock)
        collector = Collector(world.db, world.leases, [world.blobs, world.images])
        self.images = Images(
            world.images,
            world.layers,
            world.leases,
            collector,
            events=self.bus,
            users=lambda: self.containers,
            apply_changes=lambda run, changes: run,
            clock=world.clock,
        )

    def use(self, image, *, is_running=False):
        self.containers.append((image.id, ImageUser("c" * 64, is_running)))

    def events(self):
        return [(event.action, event.actor.attributes.get("name")) for event in self.bus._kept]


@pytest.fixture
def service(world):
    return Service(world)


def names(found):
    return [tag for item in found for tag in item.repo_tags or ("<none>",)]


async def listed(service, **filters):
    values = {key.replace("_not", "!"): value for key, value in filters.items()}
    return names(await service.images.list(Filters(values)))


def test_a_container_that_begins_while_a_removal_looks_around_stops_it(service):
    async def main():
        image = await service.world.add_image("a", "app:1")
        look = service.world.images.children

        async def look_slowly(image_id):
            found = await look(image_id)
            service.use(image)
            return found

        service.world.images.children = look_slowly
        with pytest.raises(ImageInUse):
            await service.images.remove("app:1")
        return (await service.world.images.resolve("app:1")).id == image.id

    assert asyncio.run(main())


def test_filters_choose_by_label_time_and_pattern(service):
    async def main():
        add = service.world.add_image
        await add("old", "old:1", labels={"a": "b"})
        await add("mid", "team/mid:2", "host:5000/team/mid:1", labels={"a": "c"})
        await add("new", "new:1", labels={"x": "y"})
        await add("lost")
        assert await listed(service) == ["<none>", "new:1", "team/mid:2", "host:5000/team/mid:1", "old:1"]
        assert await listed(service, label=["a"]) == ["team/mid:2", "host:5000/team/mid:1", "old:1"]
        assert await listed(service, label=["a=b"]) == ["old:1"]
        assert await listed(service, label_not=["a"]) == ["<none>", "new:1"]
        assert await listed(service, before=["new:1"]) == ["team/mid:2", "host:5000/team/mid:1", "old:1"]
        assert await listed(service, since=["old:1"], before=["new:1"]) == [
            "team/mid:2",
            "host:5000/team/mid:1",
        ]
        assert await listed(service, dangling=["true"]) == ["<none>"]
        assert "<none>" not in await listed(service, dangling=["false"])
        assert await listed(service, reference=["team/*"]) == ["team/mid:2"]
        assert await listed(service, reference=["*:1"]) == ["new:1", "old:1"]
        assert (
            await listed(service, until=["1s"])
            == ["new:1", "team/mid:2", "host:5000/team/mid:1", "old:1"][1:]
        )
        with pytest.raises(InvalidInput, match="invalid filter 'colour'"):
            await listed(service, colour=["red"])
        with pytest.raises(ImageNotFound):
            await listed(service, before=["nothing"])

    asyncio.run(main())


def test_glob_stars_stop_at_slashes():
    assert matches_glob("a*c", "abc")
    assert not matches_glob("*", "a/b")
    assert matches_glob("[a-c]?", "bx")
    assert matches_glob(r"\*", "*")
    for bad in ("[", "[a", "*" * 50):
        with pytest.raises(InvalidInput):
            matches_glob(bad, "a")


def test_inspect_is_what_docker_shows(service):
    async def main():
        image = await service.world.add_image(
            "top",
            "app:1",
            cmd=("sh",),
            env=("A=b",),
            labels={"k": "v"},
            exposed_ports=("80/tcp",),
            working_dir="/w",
        )
        return image, gojson.parse(gojson.encode(await service.images.inspect("app:1")))

    image, value = asyncio.run(main())

    assert value["Id"] == image.id
    assert value["RepoTags"] == ["app:1"]
    assert value["RepoDigests"] == []
    assert value["Config"] == {
        "Env": ["A=b"],
        "Cmd": ["sh"],
        "WorkingDir": "/w",
        "Labels": {"k": "v"},
        "ExposedPorts": {"80/tcp": {}},
    }
    assert value["RootFS"] == {"Type": "layers", "Layers": list(image.diff_ids)}
    assert value["Architecture"] == "amd64"
    assert value["Size"] == 3
    assert value["Metadata"]["LastTagTime"].startswith("2023-")


def test_history_is_newest_first_and_names_what_is_known(service):
    async def main():
        base = await service.world.add_image("base", "base:1")
        await service.world.add_image("top", "app:1", base=base, parent=base.id)
        return base, await service.images.history("app:1")

    base, items = asyncio.run(main())

    assert [(item.created_by, item.size) for item in items] == [("RUN top", 3), ("RUN base", 4)]
    assert items[0].tags == ("app:1",)
    assert items[1].id == base.id


def test_removing_one_of_two_names_only_takes_the_name(service):
    async def main():
        image = await service.world.add_image("a", "one", "two")
        service.use(image)
        records = await service.images.remove("one")
        return records, await service.images.list(), service.events()

    records, left, events = asyncio.run(main())

    assert [record.untagged for record in records] == ["one:latest"]
    assert names(left) == ["two:latest"]
    assert [action for action, _ in events] == ["untag"]


def test_removing_the_last_name_deletes_image_layers_and_digests(service):
    async def main():
        digest = digest_of(b"m")
        image = await service.world.add_image("a", "app:1", f"app@{digest}")
        records = await service.images.remove("app:1")
        return image, digest, records

    image, digest, records = asyncio.run(main())

    assert [record.untagged or record.deleted for record in records] == [
        "app:1",
        f"app@{digest}",
        image.id,
        image.diff_ids[0],
    ]


def test_layers_of_a_base_that_stays_are_not_listed_as_deleted(service):
    async def main():
        base = await service.world.add_image("base", "base")
        top = await service.world.add_image("top", "top", base=base)
        return top, await service.images.remove(top.id[7:12])

    top, records = asyncio.run(main())

    assert len(records) == 3
    assert records[1].deleted == top.id


@pytest.mark.parametrize(
    ("how", "force", "is_running", "text"),
    [
        (
            "name",
            False,
            False,
            'conflict: unable to remove repository reference "app:1" (must force) - container cccccccccccc is using its referenced image {}',
        ),
        (
            "id",
            False,
            False,
            "conflict: unable to delete {} (must be forced) - image is being used by stopped container cccccccccccc",
        ),
        (
            "id",
            True,
            True,
            "conflict: unable to delete {} (cannot be forced) - image is being used by running container cccccccccccc",
        ),
    ],
)
def test_conflicts_with_containers_have_dockers_texts(service, how, force, is_running, text):
    async def main():
        image = await service.world.add_image("a", "app:1")
        service.use(image, is_running=is_running)
        with pytest.raises(ImageInUse) as caught:
            await service.images.remove("app:1" if how == "name" else image.id, force=force)
        return image, caught.value

    image, error = asyncio.run(main())

    assert error.message == text.format(image.id[7:19])


def test_force_takes_the_name_from_a_running_container_and_keeps_the_image(service):
    async def main():
        image = await service.world.add_image("a", "app:1")
        service.use(image, is_running=True)
        records = await service.images.remove("app:1", force=True)
        return records, await service.world.images.get(image.id)

    records, image = asyncio.run(main())

    assert [record.untagged for record in records] == ["app:1"]
    assert image.names == ()


def test_an_id_in_several_repositories_must_be_forced(service):
    async def main():
        image = await service.world.add_image("a", "one", "two")
        with pytest.raises(ImageInUse, match="image is referenced in multiple repositories"):
            await service.images.remove(image.id)
        return await service.images.remove(image.id, force=True)

    assert [record.untagged for record in asyncio.run(main())][:2] == ["one:latest", "two:latest"]


def test_children_keep_their_parent_and_take_it_along(service):
    async def main():
        base = await service.world.add_image("base")
        child = await service.world.add_image("child", "app", base=base, parent=base.id)
        with pytest.raises(ImageInUse, match="image has dependent child images"):
            await service.images.remove(base.id, force=True)
        assert names(await service.images.list()) == ["app:latest"]
        assert len(await service.images.list(show_all=True)) == 2
        records = await service.images.remove("app")
        return (
            base,
            child,
            [record.deleted for record in records if record.deleted],
            await service.images.list(),
        )

    base, child, deleted, left = asyncio.run(main())

    assert deleted[0] == child.id
    assert base.id in deleted
    assert left == []


def test_prune_takes_unnamed_unused_images_and_with_all_the_named_ones(service):
    async def main():
        add = service.world.add_image
        await add("lost")
        used = await add("used")
        service.use(used)
        await add("named", "named")
        await add("kept", "kept", labels={"keep": ""})
        first = await service.images.prune()
        second = await service.images.prune(Filters({"dangling": ["false"], "label!": ["keep"]}))
        return used, first, second, await service.images.list()

    used, first, second, left = asyncio.run(main())

    assert len(first.images_deleted) == 2
    assert first.space_reclaimed > 0
    assert second.images_deleted[0].untagged == "named:latest"
    assert {item.id for item in left if not item.repo_tags} == {used.id}
    assert names(left) == ["kept:latest", "<none>"]


def test_usage_counts_shared_layers_once(service):
    async def main():
        base = await service.world.add_image("base", "base")
        await service.world.add_image("top", "top", base=base)
        return await service.images.usage(), await service.images.layers_size()

    usage, total = asyncio.run(main())

    assert [(item.shared_size, item.size, item.containers) for item in usage] == [(4, 7, 0), (4, 4, 0)]
    assert total == 7


def test_tagging_moves_names_and_refuses_bad_ones(service):
    async def main():
        await service.world.add_image("a", "app:1")
        await service.images.tag("app:1", "host:5000/x/app", "v2")
        for repository, tag in (("x@" + digest_of(b""), ""), ("Upper", ""), ("ok", "bad tag")):
            with pytest.raises(OrlopError):
                await service.images.tag("app:1", repository, tag)
        return names(await service.images.list()), service.events()

    tags, events = asyncio.run(main())

    assert tags == ["app:1", "host:5000/x/app:v2"]
    assert events == [("tag", "host:5000/x/app:v2")]


def test_save_and_load_speak_dockers_lines(service):
    async def main():
        image = await service.world.add_image("a", "app:1")
        archive = b"".join([chunk async for chunk in await service.images.archives.save(["app:1"])])
        anonymous = b"".join([chunk async for chunk in await service.images.archives.save([image.id])])
        await service.world.add_image("other", "app:1")
        first = [line.stream async for line in service.images.archives.load(chunks(archive), is_quiet=True)]
        second = [
            line.stream async for line in service.images.archives.load(chunks(anonymous), is_quiet=True)
        ]
        leases = await service.world.leases.list()
        return image, first, second, leases

    image, first, second, leases = asyncio.run(main())

    assert first[0].startswith("The image app:1 already exists, renaming the old one with ID sha256:")
    assert first[1] == "Loaded image: app:1\n"
    assert second == [f"Loaded image ID: {image.id}\n"]
    assert leases == []


def test_loading_tells_how_far_each_new_layer_is(service):
    async def main():
        image = await service.world.add_image("a", "app:1")
        archive = b"".join([chunk async for chunk in await service.images.archives.save(["app:1"])])
        await service.images.remove("app:1")
        await service.world.layers.delete(image.diff_ids[0])
        return image, [line async for line in service.images.archives.load(chunks(archive))]

    image, lines = asyncio.run(main())
    progress = [line for line in lines if isinstance(line, dict)]

    assert progress[-1]["status"] == "Loading layer"
    assert progress[-1]["id"] == image.diff_ids[0][7:19]
    assert progress[-1]["progressDetail"]["current"] == progress[-1]["progressDetail"]["total"]
    assert lines[-1].stream == "Loaded image: app:1\n"


def test_an_image_of_another_platform_is_not_found_under_that_platform(service):
    async def main():
        await service.world.add_image("a", "app:1")
        assert await service.images.inspect("app:1", Platform("linux", "amd64"))
        with pytest.raises(ImageNotFound, match="does not provide the specified platform"):
            await service.images.history("app:1", Platform("linux", "arm64"))

    asyncio.run(main())


def test_import_answers_with_the_id(service):
    async def main():
        request = ImportRequest(repository="imported", tag="1")
        lines = [
            line.status
            async for line in service.images.archives.import_(chunks(layer_tar({"f": b"x"})), request)
        ]
        return lines, await service.images.inspect("imported:1")

    lines, image = asyncio.run(main())

    assert lines == [image.id]
    assert image.comment == "Imported from -"
