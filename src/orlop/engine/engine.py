"""The engine: one service per noun, wired by the composition root.

Everything a client can ask for is a method of one of these; the API adapts HTTP to them and
nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orlop.engine.builds import Builds
from orlop.engine.connecting import Connections
from orlop.engine.containers import Containers
from orlop.engine.events import EventBus
from orlop.engine.execs import Execs
from orlop.engine.networks import Networks
from orlop.engine.stats_history import StatsHistory
from orlop.engine.volume_copies import VolumeCopies
from orlop.engine.volumes import Volumes

if TYPE_CHECKING:
    from orlop.engine.image_budget import ImageBudget
    from orlop.engine.images import Images
    from orlop.engine.repairs import Repairs
    from orlop.engine.system import System

__all__ = ["Engine"]


@dataclass(frozen=True, slots=True)
class Engine:
    """What handlers are given."""

    containers: Containers
    execs: Execs
    volumes: Volumes
    volume_copies: VolumeCopies
    networks: Networks
    connections: Connections
    images: Images
    budget: ImageBudget
    repairs: Repairs
    builds: Builds
    system: System
    events: EventBus
    history: StatsHistory
