"""Facts of the host, read from its files."""

from __future__ import annotations

from orlop.engine import hostfacts


def test_os_release_takes_quotes_and_skips_what_it_cannot_read():
    values = hostfacts._os_release('# c\nNAME="A B"\nVERSION_ID=12\nBAD="x\n\nX=\n')

    assert values == {"NAME": "A B", "VERSION_ID": "12", "X": ""}


def test_memory_is_in_bytes():
    assert hostfacts._memory_bytes("MemTotal:  2 kB\nMemFree: 1 kB\n") == 2048
    assert hostfacts._memory_bytes("") == 0


def test_this_machine_can_be_read():
    facts = hostfacts.read_host_facts()

    assert facts.cpu_count >= 1
    assert facts.memory_bytes > 1 << 20
    assert facts.architecture
    assert isinstance(hostfacts.is_forwarding(), bool)
