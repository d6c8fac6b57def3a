import pytest

from fakes.containers import scenario
from orlop.base.errors import InvalidInput
from orlop.engine.catalog import AmbiguousPrefix, NameInUse, NoSuchContainer
from orlop.engine.filters import Filters
from orlop.engine.requests import HostConfig, PortBinding
from orlop.engine.summaries import ListOptions


async def names(made, *, is_all=True, limit=0, **filters):
    given = {key.replace("_", "-"): values for key, values in filters.items()}
    rows = await made.containers.list(ListOptions(is_all, limit, Filters(given)))
    return [row.names[0][1:] for row in rows]


async def fleet(made):
    """one: created; two: running with a volume and a port; three: exited with 3."""
    await made.create("one", labels={"tier": "front", "a": ""})
    made.clock.advance(1)
    host = HostConfig(
        network_mode="host", binds=("data:/data",), port_bindings={"80/tcp": (PortBinding("", "8080"),)}
    )
    await made.run("two", host, exposed_ports=frozenset({"80/tcp", "53/udp"}))
    made.clock.advance(1)
    _, task = await made.run("three", labels={"tier": "back"})
    task.end(3)
    await made.settle()


@scenario
async def test_only_the_running_are_listed_unless_all_are_asked_for(made):
    await fleet(made)

    assert await names(made, is_all=False) == ["two"]
    assert await names(made) == ["three", "two", "one"]
    assert await names(made, is_all=False, limit=2) == ["three", "two"]


@scenario
async def test_every_filter_chooses(made):
    await fleet(made)
    two = made.containers.get("two")

    for filters, wanted in [
        ({"id": [two.id[:9]]}, ["two"]),
        ({"name": ["t.o"]}, ["two"]),
        ({"name": ["^/one$"]}, ["one"]),
        ({"status": ["exited"]}, ["three"]),
        ({"exited": ["3"]}, ["three"]),
        ({"exited": ["0"]}, []),
        ({"label": ["tier"]}, ["three", "one"]),
        ({"label": ["tier=front", "a"]}, ["one"]),
        ({"volume": ["data"]}, ["two"]),
        ({"volume": ["/data"]}, ["two"]),
        ({"network": ["host"]}, ["two"]),
        ({"expose": ["50-60/udp"]}, ["two"]),
        ({"publish": ["80"]}, ["two"]),
        ({"publish": ["81"]}, []),
        ({"before": ["two"]}, ["one"]),
        ({"since": ["one"]}, ["three", "two"]),
        ({"ancestor": ["busybox"]}, ["three", "two", "one"]),
        ({"ancestor": ["other"]}, []),
        ({"health": ["none"]}, ["three", "two", "one"]),
        ({"is-task": ["true"]}, []),
    ]:
        assert await names(made, **filters) == wanted, filters


@scenario
async def test_wrong_filters_are_refused(made):
    for filters in ({"colour": ["x"]}, {"status": ["tired"]}, {"exited": ["x"]}, {"health": ["so-so"]}):
        with pytest.raises(InvalidInput, match="invalid filter"):
            await names(made, **filters)


@scenario
async def test_a_row_says_what_docker_s_rows_say(made):
    await fleet(made)

    (row,) = await made.containers.list(ListOptions())

    assert row.names == ("/two",)
    assert row.command == "sh"
    assert row.state == "running"
    assert row.status == "Up 1 second"
    assert [(port.private_port, port.type) for port in row.ports] == [(53, "udp"), (80, "tcp")]
    assert row.host_config.network_mode == "host"
    assert [point.name for point in row.mounts] == ["data"]


@scenario
async def test_references_are_ids_prefixes_and_names(made):
    container_id = await made.create("web")

    for reference in (container_id, container_id[:5], "web", "/web"):
        assert made.containers.get(reference).id == container_id
    for reference in ("", "we", "0" * 64):
        with pytest.raises(NoSuchContainer):
            made.containers.get(reference)


@scenario
async def test_an_ambiguous_prefix_is_said_to_be_one(made):
    ids = [await made.create(f"name{number}") for number in range(40)]
    first = next(a for a in "0123456789abcdef" if sum(item[0] == a for item in ids) > 1)

    with pytest.raises(AmbiguousPrefix, match="Multiple IDs found with provided prefix"):
        made.containers.get(first)


@scenario
async def test_a_name_is_given_once(made):
    container_id = await made.create("web")

    with pytest.raises(NameInUse) as refusal:
        await made.create("web")

    assert refusal.value.message == (
        f'Conflict. The container name "/web" is already in use by container "{container_id}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


@scenario
async def test_a_new_name_frees_the_old_one(made):
    await made.create("web")

    await made.containers.rename("web", "/other")
    await made.create("web")

    assert sorted(made.catalog.names) == ["other", "web"]
    with pytest.raises(NameInUse):
        await made.containers.rename("other", "web")
