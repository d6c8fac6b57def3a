"""Settings changed while a container ran: beside its own in its row, its own from the next start on."""

from __future__ import annotations

from dataclasses import replace

from orlop.engine.model import Container, Record, Settings
from orlop.engine.services import Services

__all__ = ["settings_of", "settle", "with_settings"]


async def settle(services: Services, container: Container) -> None:
    """Before a start: what was changed while it ran becomes its own. The lock is held."""
    record = container.record
    if record.pending is not None:
        await services.catalog.update(container, with_settings(record, record.pending))


def settings_of(record: Record) -> Settings:
    """What of a record can be amended."""
    host = record.host
    return Settings(
        record.config, host.binds, host.mounts, host.tmpfs, host.port_bindings, record.mounts, record.orlop
    )


def with_settings(record: Record, settings: Settings) -> Record:
    """The record with these settings, none pending."""
    host = replace(
        record.host,
        binds=settings.binds,
        mounts=settings.mounts,
        tmpfs=settings.tmpfs,
        port_bindings=settings.port_bindings,
    )
    return replace(
        record,
        config=settings.config,
        host=host,
        mounts=settings.points,
        orlop=settings.orlop,
        pending=None,
    )
