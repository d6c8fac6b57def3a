"""What the engine does in registries without storing anything, and who it says it is there."""

import base64
import gzip
import json
import os
import stat
from urllib.parse import parse_qs

import pytest

from orlop.oci.platform import host_platform
from support import registry
from support.orlopd import Orlopd
from support.registry_in_thread import INDEX, RegistryInThread, Reply, error, sha256, tar_of

ARCH = host_platform().architecture
OTHER = "arm64" if ARCH != "arm64" else "amd64"


@pytest.fixture
def fake():
    with RegistryInThread() as running:
        yield running


@pytest.fixture
def client_config(engine):
    """config.json of the clients, as it was after the test."""
    path = engine.home / ".docker" / "config.json"
    before = path.read_text()
    yield path
    path.write_text(before)


def add_index(fake, repository, tag):
    """An image for two platforms; returns the index's digest."""
    entries = []
    for arch in (ARCH, OTHER):
        entry = fake.add_image(repository, arch, [tar_of(name=arch.encode() * 1000)], arch=arch)
        entries.append({**entry, "platform": {"os": "linux", "architecture": arch}})
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    return fake.add_manifest(repository, tag, index, INDEX)["digest"]


def test_a_copy_keeps_the_digest_of_all_platforms_and_stores_nothing(engine, fake, docker_registry):
    digest = add_index(fake, "team/app", "1")
    source, target = f"{fake.domain}/team/app:1", f"{docker_registry.address}/copied/app:9"
    before = engine.orlop("images", "-aq").stdout

    shown = engine.orlop("copy", source, target).stdout
    again = engine.orlop("image", "copy", source, target).stdout

    assert f"9: digest: {digest} size:" in shown
    assert docker_registry.digest("copied/app", "9") == digest
    assert docker_registry.manifest("copied/app", "9") == fake.manifests["team/app", "1"][1]
    assert "Already exists" in again
    assert "Copied" not in again
    assert engine.orlop("images", "-aq").stdout == before
    engine.docker("pull", target)
    engine.docker("rmi", target)


def test_a_copy_within_a_registry_mounts(engine, fake, docker_registry):
    add_index(fake, "team/base", "1")
    base = f"{docker_registry.address}/mounts/base:1"
    engine.orlop("copy", f"{fake.domain}/team/base:1", base)

    shown = engine.orlop("copy", base, f"{docker_registry.address}/mounts/other").stdout

    assert "Mounted from mounts/base" in shown
    assert "Copied" not in shown
    assert docker_registry.digest("mounts/other", "1") == docker_registry.digest("mounts/base", "1")


def test_one_platform_can_be_copied(engine, fake, docker_registry):
    add_index(fake, "team/two", "1")
    target = f"{docker_registry.address}/copied/one:1"

    engine.orlop("copy", "--platform", f"linux/{OTHER}", f"{fake.domain}/team/two:1", target)

    assert json.loads(docker_registry.manifest("copied/one", "1")).get("config")
    shown = engine.orlop("manifest", "inspect", "--raw", target).stdout
    assert shown.encode() == fake.manifests["team/two", OTHER][1]


def test_tags_are_listed_and_a_manifest_is_deleted_where_it_is(engine, fake, docker_registry):
    add_index(fake, "team/tags", "1")
    name = f"{docker_registry.address}/tagged/app"
    for tag in ("1", "2"):
        engine.orlop("copy", f"{fake.domain}/team/tags:1", f"{name}:{tag}")

    listed = engine.orlop("image", "tags", name).stdout
    unnamed = engine.orlop("delete-remote", name, check=False)
    single = engine.orlop("delete-remote", f"{name}:2", check=False)
    digest = engine.orlop("manifest", "--digest", "inspect", f"{name}:1").stdout.strip()
    engine.orlop("delete-remote", f"{name}@{digest}")
    missing = engine.orlop("manifest", "inspect", f"{name}:1", check=False)

    assert sorted(listed.split()) == ["1", "2"]
    assert unnamed.returncode == 1
    assert "names no tag and no digest" in unnamed.stderr
    # Debian's registry deletes no single tags; then its manifest, and with it the other tag, is not deleted
    assert single.returncode == 1
    assert "does not delete single tags" in single.stderr
    assert missing.returncode == 1
    assert "manifest unknown" in missing.stderr


def test_referrers_are_listed_with_the_api_and_by_the_tag(engine, fake):
    digest = add_index(fake, "team/signed", "1")
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:" + "a" * 64,
             "size": 7, "artifactType": "application/sig", "annotations": {"by": "me"}}  # fmt: skip
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    name = f"{fake.domain}/team/signed:1"

    none = engine.orlop("referrers", "--format", "json", name).stdout
    fake.add_manifest("team/signed", digest.replace(":", "-"), index, INDEX)
    by_tag = engine.orlop("referrers", name).stdout

    async def api(request):
        if "/referrers/" not in request.path:
            return None
        body = json.dumps({**index, "manifests": [{**entry, "digest": "sha256:" + "b" * 64}]}).encode()
        return Reply(200, body, {"Content-Type": INDEX})

    fake.hooks.append(api)
    by_api = engine.orlop("referrers", "--artifact-type", "application/sig", name).stdout
    filtered = engine.orlop("referrers", "--artifact-type", "application/other", name).stdout

    assert json.loads(none)["Referrers"] == []
    assert "sha256:" + "a" * 64 in by_tag
    assert "sha256:" + "b" * 64 in by_api
    assert "sha256:" not in filtered


HITS = [
    {"name": "busybox", "description": "small\x1b[2J", "star_count": 3000, "is_official": True},
    {"name": "me/busybox", "description": "mine", "star_count": 2, "is_official": False},
]


def test_docker_search(engine, fake):
    seen = []

    async def index(request):
        if request.path != "/v1/search":
            return None
        seen.append((request.query, request.authorization))
        return Reply(200, json.dumps({"num_results": 2, "results": HITS}).encode())

    fake.hooks.append(index)
    term = f"{fake.domain}/busybox"

    all_of_them = engine.docker("search", "--format", "{{.Name}} {{.StarCount}}", term).stdout
    official = engine.docker("search", "--filter", "is-official=true", "--filter", "stars=5", term).stdout
    ours = engine.orlop("search", "--limit", "7", term).stdout
    too_many = engine.docker("search", "--limit", "101", term, check=False)
    nonsense = engine.docker("search", "--filter", "x=y", term, check=False)

    assert all_of_them == "busybox 3000\nme/busybox 2\n"
    assert "me/busybox" not in official
    assert "[OK]" in official
    assert "\x1b" not in ours
    assert seen[0] == ({"q": "busybox", "n": "25"}, "")
    assert seen[-1][0]["n"] == "7"
    assert "limit 101 is outside the range of [1, 100]" in too_many.stderr
    assert "invalid filter 'x'" in nonsense.stderr


def test_search_asks_the_index_of_the_configuration_and_blocked_registries_nobody(fake):
    async def index(request):
        return Reply(200, json.dumps({"results": HITS}).encode()) if request.path == "/v1/search" else None

    fake.hooks.append(index)
    with Orlopd("--search-index", f"http://{fake.domain}", "--blocked-registry", "*.bad.test") as engine:
        assert "me/busybox" in engine.docker("search", "busybox").stdout
        refused = engine.docker("pull", "one.bad.test/app", check=False)

    assert refused.returncode == 1
    assert "registry one.bad.test is blocked by the configuration of this engine" in refused.stderr


class TokenServer:
    """The fake registry asks for tokens that it sells itself, as the hubs do it."""

    def __init__(self, fake):
        self.fake = fake
        self.asked = []
        self.valid = set()
        fake.hooks.append(self.answer)

    async def answer(self, request):
        if request.path == "/token":
            return await self.sell(request)
        if request.authorization.removeprefix("Bearer ") in self.valid:
            return None
        realm = f'Bearer realm="http://{self.fake.domain}/token",service="test"'
        reply = error(401, "UNAUTHORIZED", "authentication required")
        reply.headers["WWW-Authenticate"] = realm
        return reply

    async def sell(self, request):
        if request.method == "POST":
            request.body = await request.reader.readexactly(int(request.headers["content-length"]))
            form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
            self.asked.append(("POST", form.get("scope", "")))
            is_good = form.get("refresh_token") == "refresh-geheim"
        else:
            self.asked.append(("GET", request.query.get("scope", "")))
            pair = base64.b64encode(f"{registry.USER}:{registry.PASSWORD}".encode()).decode()
            is_good = request.authorization == f"Basic {pair}"
        if not is_good:
            return error(401, "UNAUTHORIZED", "no")
        token = f"token-{self.fake.port}-{len(self.asked)}"
        self.valid.add(token)
        grant = {"token": token, "expires_in": 300}
        if request.query.get("offline_token"):
            grant["refresh_token"] = "refresh-geheim"
        return Reply(200, json.dumps(grant).encode())


@pytest.mark.parametrize("client", ["docker", "orlop"])
def test_a_login_stores_an_identity_token_and_pulls_with_it(engine, fake, client_config, client):
    tokens = TokenServer(fake)
    fake.add_image("own/app", "1", [tar_of(a=b"1" * 1000)], arch=ARCH)
    run = getattr(engine, client)
    login = ("login", "-u", registry.USER, "--password-stdin", fake.domain)

    wrong = run(*login, input="wrong", check=False)
    right = run(*login, input=registry.PASSWORD)
    stored = json.loads(client_config.read_text())["auths"][fake.domain]
    again = engine.orlop("login", fake.domain)
    run("pull", f"{fake.domain}/own/app:1")
    out = run("logout", fake.domain)

    assert wrong.returncode == 1
    assert "unauthorized: incorrect username or password" in wrong.stderr
    assert "Login Succeeded" in right.stdout
    assert "Login Succeeded" in again.stdout
    assert stored["identitytoken"] == "refresh-geheim"
    assert registry.PASSWORD not in base64.b64decode(stored["auth"]).decode()
    assert ("POST", "repository:own/app:pull") in tokens.asked
    assert f"Removing login credentials for {fake.domain}" in out.stdout
    assert fake.domain not in json.loads(client_config.read_text()).get("auths", {})
    if client == "orlop":  # docker keeps the mode that the file has
        assert stat.S_IMODE(os.stat(client_config).st_mode) == 0o600
    for secret in (registry.PASSWORD, "refresh-geheim", *tokens.valid):
        assert secret not in engine.log().replace("secrets", "")
    engine.docker("rmi", f"{fake.domain}/own/app:1")


def test_a_token_that_expires_while_a_pull_runs_is_replaced(engine, fake, client_config):
    tokens = TokenServer(fake)
    layer = tar_of(a=os.urandom(400_000))
    fake.add_image("own/long", "1", [layer], arch=ARCH)
    digest = sha256(gzip.compress(layer, mtime=0))
    cuts = []

    async def cut(request):
        if digest not in request.path or request.method != "GET" or len(cuts) == 2:
            return None
        data = fake.blobs[digest]
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        cuts.append(start)
        tokens.valid.clear()
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        return Reply(206 if start else 200, data[start:], headers, cut_after=100_000)

    fake.hooks.append(cut)
    engine.orlop("login", "-u", registry.USER, "--password-stdin", fake.domain, input=registry.PASSWORD)

    engine.orlop("pull", f"{fake.domain}/own/long:1")

    assert cuts == [0, 100_000]
    assert len(tokens.asked) >= 4
    engine.docker("rmi", f"{fake.domain}/own/long:1")


HELPER = """#!/bin/sh
echo "$1" >> "$HOME/verbs"
case "$1" in
store) cat > "$HOME/secret";;
get) cat "$HOME/secret";;
erase) rm "$HOME/secret";;
esac
"""


def test_a_credential_helper_keeps_the_secret(engine, fake, client_config, tmp_path):
    TokenServer(fake)
    helper = tmp_path / "docker-credential-test"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    client_config.write_text(json.dumps({"credHelpers": {fake.domain: "test"}, "kept": 1}))
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    login = ("login", "-u", registry.USER, "--password-stdin", fake.domain)

    engine.orlop(*login, input=registry.PASSWORD, env=env)
    stored = json.loads((tmp_path / "secret").read_text())
    again = engine.orlop("login", fake.domain, env=env)
    config = json.loads(client_config.read_text())
    engine.orlop("logout", fake.domain, env=env)

    assert stored == {"ServerURL": fake.domain, "Username": "<token>", "Secret": "refresh-geheim"}
    assert config == {"credHelpers": {fake.domain: "test"}, "kept": 1, "auths": {fake.domain: {}}}
    assert "Login Succeeded" in again.stdout
    assert not (tmp_path / "secret").exists()


def test_a_copy_gives_each_registry_its_own_credentials_and_shows_none(engine, fake, client_config):
    before = len(engine.log())
    pair = base64.b64encode(f"{registry.USER}:{registry.PASSWORD}".encode()).decode()
    with RegistryInThread() as target:
        source_tokens, target_tokens = TokenServer(fake), TokenServer(target)
        add_index(fake, "own/from", "1")
        client_config.write_text(
            json.dumps({"auths": {one.domain: {"auth": pair} for one in (fake, target)}})
        )
        command = ("copy", f"{fake.domain}/own/from:1", f"{target.domain}/own/to:1")

        shown = engine.orlop(*command).stdout
        client_config.write_text("{}")
        refused = engine.orlop(*command[:2], f"{target.domain}/own/to:2", check=False)

        assert target.manifests["own/to", "1"] == fake.manifests["own/from", "1"]
        assert ("own/to", "2") not in target.manifests
        assert {scope for _, scope in source_tokens.asked} == {"repository:own/from:pull"}
        assert {scope for _, scope in target_tokens.asked} == {"repository:own/to:pull,push"}
        assert not any(f"token-{fake.port}-" in call.authorization for call in target.log)
        assert not any(f"token-{target.port}-" in call.authorization for call in fake.log)
    assert refused.returncode == 1
    for secret in (pair, "token-"):
        assert secret not in engine.log()[before:] + shown + refused.stderr
