"""Pure views of images: history lines, chain ids, shared bytes."""

from types import SimpleNamespace

from orlop.images.history import steps
from orlop.images.sharing import chain_ids, layers_size_bytes, lost_chains, shared_size_bytes
from orlop.oci.digest import digest_of
from orlop.oci.imageconfig import HistoryEntry

A, B, C = (digest_of(name.encode()) for name in "abc")


def image(*diff_ids):
    return SimpleNamespace(id="-".join(diff_ids), diff_ids=diff_ids, layer_sizes=tuple(10 for _ in diff_ids))


def test_chain_ids_follow_the_spec():
    assert chain_ids([A, B, C]) == [
        A,
        digest_of(f"{A} {B}".encode()),
        digest_of(f"{digest_of(f'{A} {B}'.encode())} {C}".encode()),
    ]
    assert chain_ids([]) == []


def test_chains_that_others_have_are_not_lost():
    assert lost_chains(image(A, B), [image(A, C), image(B)]) == chain_ids([A, B])[1:]
    assert lost_chains(image(A, B), [image(A, B, C)]) == []
    assert lost_chains(image(A, B), []) == chain_ids([A, B])[::-1]


def test_shared_layers_count_once():
    images = [image(A, B), image(A), image(C, C)]

    assert list(shared_size_bytes(images).values()) == [10, 10, 0]
    assert layers_size_bytes(images) == 30


def test_steps_without_a_layer_have_no_size():
    config = SimpleNamespace(
        diff_ids=(A, B),
        history=(
            HistoryEntry(created_by="1"),
            HistoryEntry(created_by="2", empty_layer=True),
            HistoryEntry(created_by="3"),
        ),
    )

    found = steps(config, (5, 7))

    assert [(step.entry.created_by, step.diff_id, step.size_bytes) for step in found] == [
        ("3", B, 7),
        ("2", None, 0),
        ("1", A, 5),
    ]


def test_layers_below_the_recorded_history_show_as_steps():
    found = steps(SimpleNamespace(diff_ids=(A, B), history=(HistoryEntry(created_by="top"),)), (5, 7))

    assert [(step.entry.created_by, step.size_bytes) for step in found] == [("top", 7), ("", 5)]
