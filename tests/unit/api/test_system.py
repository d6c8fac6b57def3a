"""System operations, by themselves and through the real docker client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil

import pytest
from toy import ToyEngine, call, door

from orlop.api.app import App
from orlop.engine.system import driver_status

DOCKER = shutil.which("docker")
needs_docker = pytest.mark.skipif(DOCKER is None, reason="needs the docker client")
JSON = {"content-type": "application/json"}


@pytest.fixture
def app():
    return App(ToyEngine())


def test_ping_tells_the_builder_and_no_swarm(app):
    status, headers, body = call(app, "GET", "/_ping")

    assert (status, body) == (200, b"OK")
    assert (headers["Builder-Version"], headers["Swarm"]) == ("1", "inactive")
    assert call(app, "HEAD", "/_ping")[2] == b""


def test_info_counts_and_old_fields(app):
    info = call(app, "GET", "/v1.51/info")[2]

    assert (info["Containers"], info["ContainersPaused"], info["Images"]) == (6, 2, 3)
    assert info["NCPU"] == 2
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    assert "BridgeNfIptables" not in info
    assert call(app, "GET", "/v1.49/info")[2]["BridgeNfIptables"] is True


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("file", "EROFS, straight from files"),
        ("loop", "EROFS, through loop devices"),
        ("unpacked", "directories of unpacked files"),
    ],
)
def test_info_tells_how_layers_are_seen(way, words):
    assert driver_status(way, "xfs") == (("Layers", words), ("Backing Filesystem", "xfs"))


def test_an_unknown_file_system_is_said_to_be_unknown():
    assert driver_status("file", "")[1] == ("Backing Filesystem", "unknown")


def test_version_has_the_engine_component(app):
    version = call(app, "GET", "/version")[2]

    assert (version["ApiVersion"], version["MinAPIVersion"]) == ("1.51", "1.24")
    assert version["Components"][0]["Name"] == "Engine"


def test_df_answers_what_was_asked(app):
    assert call(app, "GET", "/system/df")[2] == {
        "LayersSize": 0,
        "Images": [],
        "Containers": [],
        "Volumes": [],
        "BuildCache": [],
    }
    assert call(app, "GET", "/system/df?type=volume")[2]["Images"] is None
    assert call(app, "GET", "/system/df?type=x")[0] == 400


def test_login_returns_the_token(app):
    answer = call(app, "POST", "/auth", b'{"username":"me","password":"pw"}', headers=JSON)[2]

    assert answer == {"Status": "Login Succeeded", "IdentityToken": "token-of-me"}


@pytest.mark.parametrize("headers", [{"content-type": "text/plain"}, {}])
def test_bodies_must_be_declared_json(app, headers):
    assert call(app, "POST", "/auth", b"{}", headers=headers)[0] == 400


def test_networks_can_be_listed_and_found_by_prefix(app):
    networks = call(app, "GET", "/networks")[2]

    assert [network["Name"] for network in networks] == ["host", "none"]
    assert call(app, "GET", f"/networks/{networks[0]['Id'][:12]}")[2]["Driver"] == "host"
    assert call(app, "GET", "/networks/x")[::2] == (404, {"message": "network x not found"})
    assert call(app, "GET", '/networks?filters={"driver":["null"]}')[2][0]["Name"] == "none"


def test_what_is_not_served_says_why(app):
    status, _, body = call(app, "POST", "/swarm/init", b"{}")

    assert status == 501
    assert "Swarm" in body["message"]


@pytest.mark.parametrize("query", ["since=5&until=4", "since=x", "filters=x"])
def test_bad_event_queries_are_refused(app, query):
    assert call(app, "GET", f"/events?{query}")[0] == 400


async def docker(path, *args):
    env = {"DOCKER_HOST": f"unix://{path}", "HOME": os.path.dirname(path), "PATH": os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec(
        DOCKER, *args, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode, out.decode(), err.decode()


@needs_docker
@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("version", "--format", "{{.Server.APIVersion}} {{.Server.Platform.Name}}"), "1.51 Orlop\n"),
        (("info", "--format", "{{.Containers}} {{.Images}} {{.ID}}"), "6 3 toy-id\n"),
        (("network", "ls", "--format", "{{.Name}}/{{.Driver}}"), "host/host\nnone/null\n"),
        (("volume", "ls", "-q"), ""),
    ],
)
def test_the_docker_client_reads_us(tmp_path, args, expected):
    async def main():
        path = str(tmp_path / "s")
        async with door(path, ToyEngine()):
            return await docker(path, *args)

    code, out, err = asyncio.run(main())

    assert (code, out) == (0, expected), err


@needs_docker
def test_the_docker_client_prints_info_and_df_without_complaint(tmp_path):
    async def main():
        path = str(tmp_path / "s")
        async with door(path, ToyEngine()):
            return await docker(path, "info"), await docker(path, "system", "df", "-v")

    (code, out, err), (df_code, _, df_err) = asyncio.run(main())

    assert (code, err, df_code, df_err) == (0, "", 0, "")
    assert " Operating System: Debian\n" in out


@needs_docker
def test_the_docker_client_follows_events_and_leaves_nothing(tmp_path):
    async def main():
        path = str(tmp_path / "s")
        engine = ToyEngine()
        async with door(path, engine):
            process = await asyncio.create_subprocess_exec(
                DOCKER,
                "events",
                env={"DOCKER_HOST": f"unix://{path}", "HOME": str(tmp_path)},
                stdout=asyncio.subprocess.PIPE,
            )
            while not engine.events.listener_count():
                await asyncio.sleep(0.01)
            engine.events.publish("container", "start", "abc", {"image": "web", "name": "x"})
            line = await asyncio.wait_for(process.stdout.readline(), 10)
            process.kill()
            await process.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    while engine.events.listener_count():
                        await asyncio.sleep(0.01)
            return line.decode(), engine.events.listener_count()

    line, left = asyncio.run(main())

    assert "container start abc (image=web, name=x)" in line
    assert left == 0
