"""A pull gets on whatever happens to it: connections that break, an engine that is killed."""

import gzip
import os
import time

import pytest

from orlop.oci.platform import host_platform
from support.registry_in_thread import RegistryInThread, Reply, error, sha256, tar_of

ARCH = host_platform().architecture
LAYER = tar_of(data=os.urandom(60 << 20))
PACKED = gzip.compress(LAYER, 1, mtime=0)
DIGEST = sha256(PACKED)
CUT_BYTES = 5 << 20


@pytest.fixture
def fake():
    with RegistryInThread() as running:
        running.add_image("big", "1", [LAYER], arch=ARCH, pack=lambda tar: PACKED)
        yield running


class Flaky:
    """Resets every connection after 5 MB of the layer; counts what it sent of it."""

    def __init__(self, fake, limit=1 << 40):
        self.fake = fake
        self.limit = limit  # bytes after which it says nothing more
        self.starts = []
        self.sent_bytes = 0
        fake.hooks.append(self.answer)

    async def answer(self, request):
        if request.method != "GET" or DIGEST not in request.path:
            return None
        if self.sent_bytes >= self.limit:
            return error(503, "UNAVAILABLE", "later", **{"Retry-After": "30"})
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.starts.append(start)
        rest = PACKED[start:]
        self.sent_bytes += min(len(rest), CUT_BYTES)
        headers = {"Content-Range": f"bytes {start}-{len(PACKED) - 1}/{len(PACKED)}"} if start else {}
        cut = CUT_BYTES if len(rest) > CUT_BYTES else None
        return Reply(206 if start else 200, rest, headers, cut_after=cut)


def wait(condition, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_link_that_breaks_every_5_mb_costs_less_than_5_percent(fresh_engine, fake):
    flaky = Flaky(fake)

    fresh_engine.docker("pull", "-q", f"{fake.domain}/big:1")

    assert len(flaky.starts) >= 12
    assert flaky.sent_bytes <= 1.05 * len(PACKED), flaky.starts


def test_killed_and_cancelled_pulls_are_taken_up_where_they_were(fresh_engine, fake):
    flaky = Flaky(fake, limit=12 << 20)
    pull = ("pull", "-q", f"{fake.domain}/big:1")

    first = fresh_engine.popen(*pull)
    wait(lambda: flaky.sent_bytes >= flaky.limit)
    wait(lambda: partial_bytes(fresh_engine) >= 10 << 20)
    fresh_engine.kill()
    first.wait(30)
    first.communicate()
    flaky.limit = 30 << 20
    fresh_engine.start()
    second = fresh_engine.popen(*pull)
    wait(lambda: flaky.sent_bytes >= flaky.limit)
    wait(lambda: partial_bytes(fresh_engine) >= 25 << 20)
    second.kill()
    second.communicate()
    flaky.limit = 1 << 40
    fresh_engine.docker(*pull)

    # each break costs what was in the sockets; nothing is fetched from the beginning
    assert flaky.starts.count(0) == 1
    assert flaky.sent_bytes <= 1.05 * len(PACKED), flaky.starts


def partial_bytes(engine):
    return sum(path.stat().st_size for path in (engine.data_root / "ingest").rglob("data"))


def test_a_registry_that_ignores_ranges_is_read_again_and_the_image_is_right(fresh_engine, fake):
    calls = []

    async def deaf(request):
        if request.method != "GET" or DIGEST not in request.path:
            return None
        calls.append(request.headers.get("range"))
        return Reply(200, PACKED, cut_after=20 << 20 if len(calls) == 1 else None)

    fake.hooks.append(deaf)

    fresh_engine.docker("pull", "-q", f"{fake.domain}/big:1")

    assert len(calls) == 2
    assert calls[1].startswith("bytes=")


def test_a_rate_limit_says_what_helps(engine, fake):
    async def limited(request):
        if "/manifests/" not in request.path:
            return None
        return error(
            429, "TOOMANYREQUESTS", "You have reached your pull rate limit.", **{"Retry-After": "3600"}
        )

    fake.hooks.append(limited)

    done = engine.docker("pull", f"{fake.domain}/big:1", check=False)
    ours = engine.orlop("pull", f"{fake.domain}/big:1", check=False)

    assert done.returncode == 1
    assert "toomanyrequests: You have reached your pull rate limit." in done.stderr
    assert "log in for a higher limit, configure a mirror (hosts.toml), or wait 3600 seconds" in ours.stderr
    assert len(fake.calls("GET", "/manifests/")) + len(fake.calls("HEAD", "/manifests/")) <= 4
