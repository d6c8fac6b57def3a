import asyncio
import os

import pytest
from made_trees import DIRECTORY, hardlink, link, made_tar

from orlop.base.errors import InvalidInput
from orlop.build import context as contexts
from orlop.build.cachekey import Selection
from orlop.build.contenthash import SourceMissing
from orlop.build.context import spool_context, sweep_contexts
from orlop.build.jobs import JOBS
from orlop.procs.workers import InlineWorkers
from orlop.store.compress import BadCompression
from orlop.wire.ignorefile import InvalidPattern
from orlop.wire.tar import TarError

FILES = {"Dockerfile": b"FROM x", "a": b"1", "secret": b"s", "sub": DIRECTORY, "sub/Other": b"FROM y"}


async def pieces(data, size=1000):
    for start in range(0, len(data), size):
        yield data[start : start + size]


def with_context(tmp_path, data, work):
    async def run():
        async with spool_context(str(tmp_path), pieces(data), InlineWorkers(JOBS)) as context:
            return await work(context)

    return asyncio.run(run())


def read(tmp_path, files, path="Dockerfile", *, applies=False, how="w"):
    async def work(context):
        return await context.read_dockerfile(path, applies_ignore=applies)

    return with_context(tmp_path, made_tar(files, how), work)


def visible(tmp_path, files, path="Dockerfile", *, applies=False):
    """The names of the root that a build sees."""

    async def work(context):
        await context.read_dockerfile(path, applies_ignore=applies)
        seen = []
        for name in (name for name in files if "/" not in name):
            try:
                await context.digests([Selection(f"/{name}")])
            except SourceMissing:
                continue
            seen.append(name)
        return seen

    return with_context(tmp_path, made_tar(files), work)


@pytest.mark.parametrize("how", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_context_is_read_whatever_its_compression(tmp_path, how):
    assert read(tmp_path, FILES, how=how) == b"FROM x"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("sub/Other", b"FROM y"),
        ("./sub//Other", b"FROM y"),
        ("/Dockerfile", b"FROM x"),
        ("../../Dockerfile", b"FROM x"),
    ],
)
def test_the_dockerfile_is_found_inside_only(tmp_path, path, expected):
    assert read(tmp_path, FILES, path) == expected


def test_a_missing_dockerfile_has_the_text_that_clients_know(tmp_path):
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, {"a": b""})

    assert caught.value.message == "Cannot locate specified Dockerfile: Dockerfile"


def test_lower_case_dockerfile_is_found(tmp_path):
    assert read(tmp_path, {"dockerfile": b"FROM z"}) == b"FROM z"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "sub"])
def test_a_dockerfile_that_links_out_or_to_a_directory_is_none(tmp_path, target):
    with pytest.raises(InvalidInput):
        read(tmp_path, {"Dockerfile": link(target), "sub": DIRECTORY})


def test_a_dockerfile_may_be_a_link_inside(tmp_path):
    assert (
        read(tmp_path, {"Dockerfile": link("/sub/real"), "sub": DIRECTORY, "sub/real": b"FROM l"})
        == b"FROM l"
    )


def test_the_ignore_file_hides_itself_and_the_dockerfile_only(tmp_path):
    files = FILES | {".dockerignore": b"Dockerfile\n.dockerignore\nsecret\n"}

    assert visible(tmp_path, files) == ["a", "secret", "sub"]


def test_all_rules_count_when_asked_for(tmp_path):
    files = FILES | {".dockerignore": b"*\n!a\n"}

    assert visible(tmp_path, files, applies=True) == ["a"]


def test_an_ignored_dockerfile_can_still_be_read(tmp_path):
    assert read(tmp_path, FILES | {".dockerignore": b"*"}, applies=True) == b"FROM x"


def test_the_ignore_file_beside_the_dockerfile_wins(tmp_path):
    files = FILES | {".dockerignore": b"a", "Dockerfile.dockerignore": b"secret"}

    assert "a" in visible(tmp_path, files, applies=True)
    assert "secret" not in visible(tmp_path, files, applies=True)


@pytest.mark.parametrize(
    ("rules", "error"),
    [
        (b"[", InvalidPattern),
        (b"!\n", InvalidPattern),
        (b"x\n" * 10_001, InvalidPattern),
        (b"**/" * 2_000, InvalidPattern),
    ],
)
def test_bad_rules_are_refused(tmp_path, rules, error):
    with pytest.raises(error):
        read(tmp_path, FILES | {".dockerignore": rules}, applies=True)


def test_many_double_stars_end(tmp_path):
    files = {"Dockerfile": b"", ".dockerignore": b"**/" * 30 + b"z", "/".join(["a"] * 200): b""}

    assert read(tmp_path, files, applies=True) == b""


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"no tar at all" * 100, TarError),
        (made_tar({"x": b"1" * 5000})[:3000], TarError),
        (made_tar({"x": b"1"}, "w:gz")[:-10], BadCompression),
        (made_tar({"../x": b"1"}), TarError),
        (made_tar({"h": hardlink("/etc/passwd")}), TarError),
    ],
)
def test_hostile_bodies_are_refused_and_leave_nothing(tmp_path, data, error):
    async def work(context):
        await context.read_dockerfile("Dockerfile", applies_ignore=False)

    with pytest.raises(error):
        with_context(tmp_path, data, work)

    assert os.listdir(tmp_path / "build") == []


def test_the_spool_is_private_and_gone_afterwards(tmp_path):
    async def work(context):
        del context
        (name,) = os.listdir(tmp_path / "build")
        return os.stat(tmp_path / "build" / name).st_mode & 0o777

    assert with_context(tmp_path, made_tar(FILES), work) == 0o600
    assert os.listdir(tmp_path / "build") == []


def test_a_context_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(contexts, "MAX_CONTEXT_BYTES", 10_000)

    with pytest.raises(contexts.ContextTooLarge):
        read(tmp_path, {"Dockerfile": b"x" * 50_000})


def test_large_contexts_are_read_by_a_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(contexts, "_SMALL_BYTES", 0)

    assert read(tmp_path, FILES) == b"FROM x"


def test_what_a_crash_left_is_swept(tmp_path):
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "ctx-1").write_bytes(b"x" * 10)

    assert sweep_contexts(str(tmp_path)) == 10
    assert sweep_contexts(str(tmp_path / "none")) == 0
