import pytest

from fakes.containers import scenario
from orlop.engine.attaching import AttachOptions
from orlop.engine.lifecycle import NotPossible

LIVE = AttachOptions(is_stream=True, has_stdin=True, has_stdout=True, has_stderr=True)


@scenario
async def test_a_stream_waits_for_the_start_and_is_handed_over(made):
    await made.create(open_stdin=True)
    stream = await made.containers.attach("web", LIVE)
    (pending,) = made.containers.get("web").attachments

    await made.containers.start("web")

    assert pending.spec.has_stdin
    assert made.containers.get("web").attachments == []
    assert stream.socket.recv(1) == b""  # the fake runtime closes what it is given
    stream.close()


@scenario
async def test_a_client_that_leaves_before_the_start_leaves_nothing(made):
    await made.create()
    stream = await made.containers.attach("web", LIVE)

    stream.close()
    stream.close()

    assert made.containers.get("web").attachments == []


@scenario
async def test_stdin_is_attached_only_to_a_container_that_reads_it(made):
    await made.create()
    stream = await made.containers.attach("web", LIVE)

    (pending,) = made.containers.get("web").attachments
    assert not pending.spec.has_stdin
    stream.close()


@scenario
async def test_a_removed_container_ends_the_streams_that_waited(made):
    await made.create()
    stream = await made.containers.attach("web", LIVE)

    await made.containers.remove("web")

    assert stream.socket.recv(1) == b""
    stream.close()


@scenario
async def test_a_frozen_container_cannot_be_attached(made):
    await made.run()
    await made.containers.pause("web")

    with pytest.raises(NotPossible, match="unpause the container before attach"):
        await made.containers.attach("web", LIVE)


@scenario
async def test_detach_keys_belong_to_terminals_unless_they_are_given(made):
    await made.create("plain")
    await made.create("screen", tty=True)

    assert (await made.containers.attach("plain", AttachOptions())).input_filter is None
    assert (await made.containers.attach("plain", AttachOptions(detach_keys="a"))).input_filter is not None
    assert (await made.containers.attach("screen", AttachOptions())).input_filter is not None
