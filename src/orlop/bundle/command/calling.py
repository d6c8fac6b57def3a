"""What every verb gets, and how a verb is declared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orlop.bundle.command.flags import Flag, Parsed
from orlop.bundle.records import Record, Status, Store
from orlop.bundle.refusal import Refused

__all__ = ["Call", "Verb"]


@dataclass(slots=True)
class Call:
    """One invocation: global settings, and the verb's own flags and words."""

    store: Store
    verb: str
    parsed: Parsed
    environment: Mapping[str, str]
    is_root_given: bool = False

    def container(self) -> tuple[Record, Status]:
        """The container that the first word names."""
        record = self.store.load(self.parsed.words[0])
        return record, self.store.status(record)


@dataclass(frozen=True, slots=True)
class Verb:
    """A row of the table: what runs, which flags, how many words."""

    run: Callable[[Call], int]
    summary: str
    usage: str = "<container-id>"
    flags: Mapping[str, Flag] = field(default_factory=dict)
    words: tuple[int, int | None] = (1, 1)

    def check_words(self, name: str, count: int) -> None:
        """Refuse too few or too many."""
        least, most = self.words
        if count < least or (most is not None and count > most):
            wanted = f"{least}" if least == most else f"at least {least}"
            raise Refused(
                f'"{name}" requires {wanted} argument(s)', hint=f"usage: {name} [flags] {self.usage}"
            )
