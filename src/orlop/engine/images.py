"""Images as clients see them: list, inspect, history, tag, remove, prune.

Archives lie in `image_archives`, pull and push in `image_transfers`. Containers are known here only through
a callable that lists which image each one uses, given by the composition root.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from orlop.base import log
from orlop.base.clock import Clock, SystemClock, format_rfc3339_nano
from orlop.base.errors import InvalidInput, OrlopError
from orlop.engine.events import EventBus
from orlop.engine.filters import Filters, parse_timestamp_ns
from orlop.engine.image_archives import ApplyChanges, ImageArchives, tag_reference
from orlop.engine.image_facts import ImageFactsReader
from orlop.engine.image_filters import LIST_KEYS, PRUNE_KEYS, ImageFilter
from orlop.engine.image_insight import ImageInsight
from orlop.engine.image_manifests import ManifestSummary, descriptor_view, manifests_of
from orlop.engine.image_mounts import ImageMounts
from orlop.engine.image_transfers import ImageTransfers
from orlop.engine.image_views import (
    Deleted,
    HistoryItem,
    ImageDisk,
    ImageInspect,
    ImageMetadata,
    ImageSummary,
    PruneReport,
    RootFs,
    config_view,
)
from orlop.engine.views import GraphDriver
from orlop.images.history import steps
from orlop.images.model import Image, ImageNotFound, Layers
from orlop.images.platforms import choose_platforms
from orlop.images.removal import (
    ImageInUse,
    ImageUser,
    RemovalPlan,
    Subject,
    plan_removal,
    plan_single,
    plan_variant,
)
from orlop.images.sharing import layers_size_bytes, lost_chains, shared_size_bytes
from orlop.images.store import ImageStore
from orlop.oci.digest import Digest
from orlop.oci.platform import Platform
from orlop.oci.reference import Reference
from orlop.store.collect import Collector
from orlop.store.leases import Leases

__all__ = ["ImageExtensions", "ImageUsers", "Images"]

_NANO = 1_000_000_000
_ZERO_TIME = "0001-01-01T00:00:00Z"  # Go's zero time: what clients test for
_MISSING = "<missing>"  # docker CLI shows it, scripts look for it

ImageUsers = Callable[[], Iterable[tuple[str, ImageUser]]]  # (image id, container) of every container


@dataclass(frozen=True, slots=True)
class ImageExtensions:
    """What other engines do not have, and what needs workers."""

    insight: ImageInsight
    mounts: ImageMounts


class Images:
    """The image service; one per engine."""

    def __init__(  # noqa: PLR0913 - the services it is made of
        self,
        store: ImageStore,
        layers: Layers,
        leases: Leases,
        collector: Collector,
        *,
        events: EventBus,
        users: ImageUsers,
        apply_changes: ApplyChanges,
        clock: Clock | None = None,
        transfers: ImageTransfers | None = None,
        extensions: ImageExtensions | None = None,
    ) -> None:
        self._store = store
        self._transfers = transfers
        self._extensions = extensions
        self.facts = ImageFactsReader(store)
        self._clock = clock or SystemClock()
        self.archives = ImageArchives(
            store,
            layers,
            leases,
            self._clock,
            apply_changes=apply_changes,
            publish=self._publish,
            collect=self._collect,
        )
        self._collector = collector
        self._events = events
        self._users = users

    @property
    def transfers(self) -> ImageTransfers:
        """Pull, push and remote inspection."""
        assert self._transfers is not None, "an engine without a network was asked to use it"
        return self._transfers

    @property
    def insight(self) -> ImageInsight:
        """Layers and differences of images."""
        assert self._extensions is not None, "an engine without workers was asked to look into images"
        return self._extensions.insight

    @property
    def mounts(self) -> ImageMounts:
        """Images as directories of the host."""
        assert self._extensions is not None, "an engine without workers was asked to mount images"
        return self._extensions.mounts

    async def list(
        self,
        filters: Filters | None = None,
        *,
        show_all: bool = False,
        with_shared_size: bool = False,
        with_containers: bool = False,
        with_manifests: bool = False,
    ) -> Sequence[ImageSummary]:
        """All images that pass the filters, newest first.

        Args:
            filters: `before dangling label label! reference since until`.
            show_all: with unnamed images that others were made from.
            with_shared_size: compute what is shared, else -1.
            with_containers: count containers, else -1.
            with_manifests: say what the index of each name holds.
        """
        wanted = filters or Filters()
        wanted.check_keys(LIST_KEYS)
        images = await self._store.list()
        chosen = await self._filter(wanted)
        parents = {image.parent for image in images}
        shared = shared_size_bytes(images) if with_shared_size else {}
        users = self._users_by_image() if with_containers or with_manifests else {}
        others = await self._variants(images)
        found = []
        for image in sorted(images, key=lambda image: (-image.created_ns, image.id)):
            is_intermediate = not image.names and image.id in parents
            if (is_intermediate and not show_all) or (image.variant_names and not image.names):
                continue  # a variant is a part of the image that its name means
            tags = chosen.select(image)
            if tags is None:
                continue
            all_of_it = (image, *others.get(image.id, ()))
            count = sum(len(users.get(one.id, ())) for one in all_of_it) if with_containers else -1
            summary = _summary(image, tags, shared.get(image.id, -1), count)
            if len(all_of_it) > 1:
                extra = sum(shared.get(one.id, 0) for one in all_of_it[1:])
                summary = replace(
                    summary,
                    size=layers_size_bytes(all_of_it),
                    shared_size=summary.shared_size + extra if with_shared_size else -1,
                )
            if with_manifests:
                manifests = await self._manifests(image, all_of_it[1:], users)
                summary = replace(summary, manifests=manifests)
            found.append(summary)
        return found

    async def _variants(self, images: Sequence[Image]) -> Mapping[str, Sequence[Image]]:
        """The further images of the names that mean an image."""
        by_id = {image.id: image for image in images}
        found: dict[str, Sequence[Image]] = {}
        for image_id, other in await self._store.variant_pairs():
            if image_id in by_id and other in by_id:
                found[image_id] = (*found.get(image_id, ()), by_id[other])
        return found

    async def _manifests(
        self, image: Image, others: Sequence[Image], users: Mapping[str, Sequence[ImageUser]]
    ) -> tuple[ManifestSummary, ...] | None:
        def containers(image_id: str) -> Sequence[str]:
            return [user.container_id for user in users.get(image_id, ())]

        return await manifests_of(self._store, image, others, containers)

    async def count(self) -> int:
        """How many there are."""
        return len(await self._store.list())

    async def layers_size(self) -> int:
        """Bytes of all layers of images, each counted once."""
        return layers_size_bytes(await self._store.list())

    async def usage(self) -> Sequence[ImageSummary]:
        """The images part of `system df`."""
        return await self.list(show_all=True, with_shared_size=True, with_containers=True)

    async def disk(self) -> ImageDisk:
        """What the layers of all images take, what could be freed, and how compressed bytes can be had."""
        return await self.facts.disk(frozenset(self._users_by_image()))

    async def inspect(
        self, name: str, platform: Platform | None = None, *, with_manifests: bool = False
    ) -> ImageInspect:
        """Everything about one image. Raises ImageNotFound, also when it is for another platform."""
        image = await self._resolve(name, platform)
        config = image.config
        manifests = None
        if with_manifests:
            others = (await self._variants(await self._store.list())).get(image.id, ())
            manifests = await self._manifests(image, others, self._users_by_image())
        names = (*image.names, *image.variant_names)
        return ImageInspect(
            id=image.id,
            repo_tags=tuple(name.familiar for name in names if name.digest is None),
            repo_digests=tuple(replace(name, tag=None).familiar for name in names if name.digest is not None),
            parent=image.parent,
            comment=config.comment or (config.history[-1].comment if config.history else ""),
            created="" if config.created_ns is None else format_rfc3339_nano(config.created_ns),
            docker_version=config.docker_version,
            author=config.author,
            config=config_view(config.run),
            architecture=config.platform.architecture,
            variant=config.platform.variant,
            os=config.platform.os,
            os_version=config.platform.os_version,
            size=image.size_bytes,
            graph_driver=GraphDriver(data=None, name="erofs"),
            root_fs=RootFs("layers", image.diff_ids),
            metadata=ImageMetadata(format_rfc3339_nano(image.tagged_ns) if image.tagged_ns else _ZERO_TIME),
            descriptor=descriptor_view(image.target) if image.target else None,
            manifests=manifests,
            orlop=await self.facts.of(image),
        )

    async def history(self, name: str, platform: Platform | None = None) -> Sequence[HistoryItem]:
        """How an image was made, newest step first. Raises ImageNotFound, as `inspect`."""
        image = await self._resolve(name, platform)
        items = [
            HistoryItem(
                comment=step.entry.comment,
                created=(step.entry.created_ns or 0) // _NANO,
                created_by=step.entry.created_by,
                id=_MISSING,
                size=step.size_bytes,
                tags=None,
            )
            for step in steps(image.config, image.layer_sizes)
        ]
        return await self._with_ids(image, items)

    async def tag(self, name: str, repository: str, tag: str = "") -> None:
        """Give an image another name. Raises ImageNotFound, InvalidReference."""
        reference = tag_reference(repository, tag)
        image, source = await self._store.resolve_name(name)
        others = await self._store.variants(source) if source else ()
        await self._store.tag(image.id, reference, [other.id for other in others])
        self._publish("tag", image, reference.familiar)

    async def remove(
        self, name: str, *, force: bool = False, prune: bool = True, platforms: Sequence[Platform] = ()
    ) -> Sequence[Deleted]:
        """Take a name away and, with the last one, the image. See `images.removal`.

        Args:
            name: a name, an id, or the beginning of an id.
            force: also when several names or stopped containers hold the image.
            prune: also remove unnamed images that it was made from.
            platforms: remove only the images of the name for these.

        Raises:
            ImageNotFound, ImageInUse: with Docker's texts.
        """
        image, reference = await self._store.resolve_name(name)
        variants = await self._store.variants(reference) if reference else []
        if platforms:
            chosen = choose_platforms(name, [image, *variants], platforms)
            if len(chosen) <= len(variants):
                return await self._remove_variants(chosen, force=force)
        plan = plan_removal(await self._subject(image), name, reference, force=force)
        records = [*await self._carry_out(image, plan)]
        parent = image.parent
        while plan.delete and prune and parent:
            above = await self._store.find(parent)
            if above is None or above.is_named:
                break
            try:
                records += await self._carry_out(above, plan_single(await self._subject(above)))
            except ImageInUse:
                break
            parent = above.parent
        for other in variants:
            records += await self._drop_orphan(other)
        if plan.delete or variants:
            await self._collect()
        return records

    async def _remove_variants(self, chosen: Sequence[Image], *, force: bool) -> Sequence[Deleted]:
        """Remove some images of a name; the name stays with the others."""
        subjects = [await self._subject(image) for image in chosen]
        for subject in subjects:
            plan_variant(subject, force=force)
        records: Sequence[Deleted] = []
        for image in chosen:
            records = [*records, *await self._carry_out(image, RemovalPlan((), delete=True))]
        await self._collect()
        return records

    async def _drop_orphan(self, image: Image) -> Sequence[Deleted]:
        """Remove an image that came with a name which is gone, unless something else needs it."""
        try:
            fresh = await self._store.get(image.id)
            if fresh.is_named:
                return ()
            return await self._carry_out(fresh, plan_single(await self._subject(fresh)))
        except (ImageInUse, ImageNotFound):
            return ()

    async def prune(self, filters: Filters | None = None) -> PruneReport:
        """Remove images that no container uses: unnamed ones, or with `dangling=false` all.

        Args:
            filters: `dangling label label! until`.
        """
        wanted = filters or Filters()
        wanted.check_keys(PRUNE_KEYS)
        dangling_only = wanted.get_bool("dangling", default=True)
        chosen = await self._filter(Filters({key: wanted.get(key) for key in ("label", "label!", "until")}))
        records: list[Deleted] = []
        for image in await self._store.list():
            if (dangling_only and image.is_named) or chosen.select(image) is None:
                continue
            try:
                records += await self._carry_out(image, plan_single(await self._subject(image)))
            except ImageInUse:
                continue
        freed = await self._collect()
        self._events.publish("image", "prune", "", {"reclaimed": str(freed)})
        return PruneReport(tuple(records) or None, freed)

    async def remove_unused(self, image_id: Digest) -> bool:
        """Remove an image with its names unless something uses it; True when it is gone."""
        try:
            image = await self._store.get(image_id)
            await self._carry_out(image, plan_single(await self._subject(image)))
        except ImageInUse:
            return False
        except ImageNotFound:
            return True
        return True

    async def collect(self) -> int:
        """Free the bytes that nothing needs any more; how many."""
        return await self._collect()

    async def pin(self, name: str, *, is_pinned: bool) -> None:
        """Keep an image from automatic removal, or let it go again. Raises ImageNotFound."""
        image = await self._store.resolve(name)
        await self._store.uses.pin(image.id, is_pinned=is_pinned)

    async def _resolve(self, name: str, platform: Platform | None) -> Image:
        image = await self._store.resolve(name, platform)
        if platform is not None and not image.config.platform.runs_on(platform):
            raise ImageNotFound(
                f"image with reference {name} was found but does not provide "
                f"the specified platform ({platform})"
            )
        return image

    async def _filter(self, filters: Filters) -> ImageFilter:
        until_ns = None
        if "until" in filters:
            if len(filters.get("until")) > 1:
                raise InvalidInput("more than one until filter specified")
            until_ns = parse_timestamp_ns(filters.get("until")[0], self._clock.now_ns())
        before = [(await self._store.resolve(name)).created_ns for name in filters.get("before")]
        since = [(await self._store.resolve(name)).created_ns for name in filters.get("since")]
        if until_ns is not None:
            before.append(until_ns)
        return ImageFilter(filters, before_ns=min(before, default=None), since_ns=max(since, default=None))

    async def _with_ids(self, image: Image, items: Sequence[HistoryItem]) -> Sequence[HistoryItem]:
        """Name the first step by the image, and further ones as far as parents are known."""
        found: list[HistoryItem] = []
        current: Image | None = image
        for item in items:
            if current is None:
                found.append(item)
                continue
            tags = tuple(tag.familiar for tag in current.tags) or None
            found.append(
                HistoryItem(item.comment, item.created, item.created_by, current.id, item.size, tags)
            )
            current = await self._store.find(current.parent) if current.parent else None
        return found

    async def _subject(self, image: Image) -> Subject:
        fresh = await self._store.get(image.id)
        children = await self._store.children(image.id)
        # the users come last: from here to the order to delete nothing waits, so that a container
        # that is not among them finds the image gone when it writes its row
        users = self._users_by_image().get(image.id, ())
        return Subject(id=image.id, names=fresh.names, users=tuple(users), has_children=bool(children))

    def _users_by_image(self) -> dict[str, Sequence[ImageUser]]:
        found: defaultdict[str, Sequence[ImageUser]] = defaultdict(tuple)
        for image_id, user in self._users():
            found[image_id] = (*found[image_id], user)
        return found

    async def _carry_out(self, image: Image, plan: RemovalPlan) -> Sequence[Deleted]:
        await self._store.remove(image.id, plan.untag, delete=plan.delete)
        records = [Deleted(untagged=name.familiar) for name in plan.untag]
        for _ in plan.untag:
            self._publish("untag", image, image.id)
        if plan.delete:
            chains = lost_chains(image, await self._store.list())
            records += [Deleted(deleted=digest) for digest in (image.id, *chains)]
            self._publish("delete", image, image.id)
        return records

    async def _collect(self) -> int:
        try:
            return (await self._collector.run()).size_bytes
        except OrlopError as error:  # what was asked for is done; the next collection frees the space
            log.warning("collection failed", error=error)
            return 0

    def _publish(self, action: str, image: Image, name: str) -> None:
        self._events.publish("image", action, image.id, {**image.config.run.labels, "name": name})


def _summary(image: Image, tags: Sequence[Reference], shared: int, containers: int) -> ImageSummary:
    return ImageSummary(
        containers=containers,
        created=image.created_ns // _NANO,
        id=image.id,
        labels=dict(image.config.run.labels) or None,
        parent_id=image.parent,
        repo_digests=tuple(reference.familiar for reference in image.repo_digests),
        repo_tags=tuple(tag.familiar for tag in tags),
        shared_size=shared,
        size=image.size_bytes,
        descriptor=descriptor_view(image.target) if image.target else None,
    )
