"""When images were last used, and which must stay: what collection by age and size goes by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orlop.base.clock import Clock, SystemClock
from orlop.oci.digest import Digest
from orlop.store.db import Database, Tx

__all__ = ["ImageUses", "Use", "tx_touch"]


@dataclass(frozen=True, slots=True)
class Use:
    """When an image was last used (0: never), and whether it must stay."""

    used_ns: int = 0
    is_pinned: bool = False


def tx_touch(tx: Tx, images: Iterable[str], now_ns: int) -> None:
    """Note a use in a transaction of others."""
    tx.executemany(
        "INSERT INTO image_use (image, used_ns) SELECT id, ? FROM image WHERE id = ?"
        " ON CONFLICT (image) DO UPDATE SET used_ns = max(used_ns, excluded.used_ns)",
        [(now_ns, image) for image in images],
    )


class ImageUses:
    """The uses of one data root's images."""

    def __init__(self, db: Database, clock: Clock | None = None) -> None:
        self._db = db
        self._clock = clock or SystemClock()

    async def touch(self, *images: Digest) -> None:
        """Note that images are used now; those that are gone are left out."""
        now_ns = self._clock.now_ns()
        await self._db.write(lambda tx: tx_touch(tx, images, now_ns))

    async def pin(self, image: Digest, *, is_pinned: bool) -> None:
        """Keep an image from automatic removal, or let it go again."""

        def work(tx: Tx) -> None:
            tx.execute(
                "INSERT INTO image_use (image, is_pinned) SELECT id, ? FROM image WHERE id = ?"
                " ON CONFLICT (image) DO UPDATE SET is_pinned = excluded.is_pinned",
                (int(is_pinned), image),
            )

        await self._db.write(work)

    async def all(self) -> dict[Digest, Use]:
        """What is known, by image."""

        def work(tx: Tx) -> dict[Digest, Use]:
            found = tx.execute("SELECT image, used_ns, is_pinned FROM image_use")
            return {Digest(row[0]): Use(row[1], bool(row[2])) for row in found}

        return await self._db.read(work)
