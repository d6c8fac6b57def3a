"""The life of containers with the unmodified docker client: states, policies, health, amendments."""

import json
import time

import docker
import pytest

RUN = ("run", "-d", "--network", "none")
FAILING = ("--health-cmd", "cat /tmp/well", "--health-interval", "50ms", "--health-retries", "2")
DEADLINE_S = 30


def until(check, what="it"):
    deadline = time.monotonic() + DEADLINE_S
    while not (found := check()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.02)
    return found


def state(engine, name, form="{{.State.Status}}"):
    return engine.docker("inspect", "-f", form, name).stdout.strip()


def refusal(engine, *words):
    done = engine.docker(*words, check=False)
    assert done.returncode == 1, done.stdout
    return done.stderr.strip().splitlines()[0].removeprefix("Error response from daemon: ")


# states


def test_refusals_have_docker_s_words(engine):
    running = engine.docker(*RUN, "--name", "runs", "busybox", "sleep", "1000").stdout.strip()
    made = engine.docker("create", "--network", "none", "--name", "made", "busybox").stdout.strip()
    engine.docker("start", "runs")
    engine.docker("stop", "made")
    assert refusal(engine, "kill", "made") == f"cannot kill container: made: container {made} is not running"
    assert refusal(engine, "pause", "made") == f"container {made} is not running"
    assert refusal(engine, "unpause", "runs") == f"Container {running} is not paused"
    assert refusal(engine, "rm", "runs") == (
        'cannot remove container "/runs": container is running: stop the container before removing or force remove'
    )
    assert refusal(engine, "rename", "runs", "runs") == (
        "Renaming a container with the same name as its current name"
    )
    assert refusal(engine, "rename", "runs", "made") == (
        f'Error when allocating new name: Conflict. The container name "/made" is already in use by container "{made}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    assert refusal(engine, "rename", "runs", "no good").startswith(
        "Error when allocating new name: Invalid container name (/no good)"
    )
    engine.docker("pause", "runs")
    assert refusal(engine, "pause", "runs") == f"Container {running} is already paused"
    assert refusal(engine, "start", "runs") == "cannot start a paused container, try unpause instead"
    assert refusal(engine, "rm", "runs") == (
        'cannot remove container "/runs": container is paused and must be unpaused first'
    )
    engine.docker("restart", "-t", "0", "runs")
    assert state(engine, "runs") == "running"


def test_a_frozen_container_takes_its_stop_whatever_the_signal(engine):
    engine.docker(
        *RUN, "--name", "trap", "busybox", "sh", "-c", "trap 'exit 7' HUP; while :; do sleep 0.05; done"
    )
    engine.docker("pause", "trap")

    engine.docker("stop", "-s", "HUP", "-t", "20", "trap")

    assert state(engine, "trap", "{{.State.ExitCode}}") == "7"


def test_filters_and_prune(engine):
    engine.docker("create", "--network", "none", "--name", "one", "-l", "k=1", "--expose", "80", "busybox")
    engine.docker("create", "--network", "none", "--name", "two", "-l", "k=2", "-v", "vol:/data", "busybox")

    def names(*words):
        return engine.docker("ps", "-a", "--format", "{{.Names}}", *words).stdout.split()

    assert names("--last", "1") == ["two"]
    assert names("--filter", "label=k=1") == ["one"]
    assert names("--filter", "before=two") == ["one"]
    assert names("--filter", "since=one") == ["two"]
    assert names("--filter", "expose=80/tcp") == ["one"]
    assert names("--filter", "volume=/data") == ["two"]
    assert names("--filter", "network=none", "--filter", "name=^/one$") == ["one"]
    assert names("--filter", "ancestor=busybox", "--filter", "status=created", "--filter", "health=none") == [
        "two",
        "one",
    ]
    assert names("--filter", "isolation=default", "--filter", "is-task=false", "--filter", "exited=0") == []
    for wrong in ("nonsense=1", "status=flying", "health=fine", "is-task=perhaps", "exited=none"):
        assert "invalid" in refusal(engine, "ps", "--filter", wrong).lower()
    twice = ("--filter", "until=1h", "--filter", "until=2h")
    assert refusal(engine, "container", "prune", "-f", *twice) == "more than one until filter specified"
    assert "Total reclaimed space: 0B" in engine.docker("container", "prune", "-f", *twice[:2]).stdout
    engine.docker("container", "prune", "-f", "--filter", "label!=k=2")
    assert names() == ["two"]


def test_files_and_words_of_create(engine, tmp_path):
    (tmp_path / "env").write_text("# comment\nA=1 2\nHOME\nUNSET_HERE\n")
    (tmp_path / "labels").write_text("x=y\n#no\nbare\n")
    words = (
        *("--network", "none", "--cidfile", tmp_path / "cid", "--env-file", tmp_path / "env"),
        *("--label-file", tmp_path / "labels", "--annotation", "n=1", "--stop-signal", "USR1"),
        *("--stop-timeout", "3", "--group-add", "77", "--hostname", "host1", "--domainname", "example.org"),
        *(
            "--entrypoint",
            "",
            "--init",
            "busybox",
            "sh",
            "-c",
            "id -G; hostname; cat /proc/sys/kernel/domainname",
        ),
    )
    for client in (engine.docker, engine.orlop):
        found = client("create", *words).stdout.strip()
        assert (tmp_path / "cid").read_text() == found
        config = json.loads(engine.docker("inspect", found).stdout)[0]
        assert [word for word in config["Config"]["Env"] if not word.startswith("PATH=")] == [
            "A=1 2",
            f"HOME={engine.home}",
        ]
        assert config["Config"]["Labels"] == {"x": "y"}
        assert config["HostConfig"]["Annotations"] == {"n": "1"}
        assert (config["Config"]["StopSignal"], config["Config"]["StopTimeout"]) == ("USR1", 3)
        assert engine.docker("start", "-a", found).stdout.split() == ["0", "77", "host1", "example.org"]
        assert client("create", *words, check=False).returncode in (1, 125)  # the cidfile is there
        (tmp_path / "cid").unlink()


def test_the_api_socket_of_docker_is_mounted(fresh_engine):
    words = ("run", "--rm", "--use-api-socket", "--network", "none", "busybox")
    for client in (fresh_engine.docker, fresh_engine.orlop):
        assert client(*words, "test", "-S", "/var/run/docker.sock").stdout == ""


# policies


def test_a_policy_outlives_the_engine(fresh_engine):
    fresh_engine.docker(*RUN, "--name", "crash", "--restart", "on-failure:2", "busybox", "false")
    fresh_engine.docker(*RUN, "--name", "loop", "--restart", "always", "busybox", "true")
    until(lambda: int(state(fresh_engine, "loop", "{{.RestartCount}}")) >= 2)
    fresh_engine.kill()
    fresh_engine.start()
    seen = int(state(fresh_engine, "loop", "{{.RestartCount}}"))
    until(lambda: int(state(fresh_engine, "loop", "{{.RestartCount}}")) > seen, "another restart")
    until(lambda: state(fresh_engine, "crash") == "exited")
    assert state(fresh_engine, "crash", "{{.RestartCount}}") == "2"

    fresh_engine.docker("stop", "loop")
    assert state(fresh_engine, "loop") == "exited"
    fresh_engine.docker("update", "--restart", "unless-stopped", "loop")
    fresh_engine.kill()
    fresh_engine.start()
    assert state(fresh_engine, "loop") == "exited"
    fresh_engine.docker("update", "--restart", "always", "loop")
    fresh_engine.restart()
    until(lambda: int(state(fresh_engine, "loop", "{{.RestartCount}}")) > 0, "a start with the engine")


# health


def health_actions(engine, name):
    """What was done, in the seconds that have passed: docker's client asks for whole ones."""
    done = engine.docker(
        *("events", "--since", "1h", "--until", "0s", "--filter", f"container={name}"),
        *("--format", '{{.Action}}|{{index .Actor.Attributes "reason"}}'),
    )
    return [line for line in done.stdout.splitlines() if line.startswith("health_action")]


def test_failing_health_restarts_when_a_label_asks_for_it(engine):
    words = (*FAILING, "--label", "orlop.health-on-failure=restart", "--stop-timeout", "0")
    engine.docker(*RUN, "--name", "sick", *words, "busybox", "sleep", "1000")

    until(lambda: int(state(engine, "sick", "{{.RestartCount}}")) >= 2, "a second restart")

    assert until(lambda: health_actions(engine, "sick"))[0] == (
        "health_action: restart|cat: can't open '/tmp/well': No such file or directory"
    )
    assert json.loads(engine.docker("inspect", "sick").stdout)[0]["Orlop"] == {"HealthOnFailure": "restart"}


def test_health_goes_on_with_the_next_engine_and_so_does_what_is_done_about_it(fresh_engine):
    words = (*FAILING, "--health-on-failure", "restart", "--stop-timeout", "0")
    script = "touch /tmp/well; sleep 1000"
    fresh_engine.orlop(*RUN, "--name", "well", *words, "busybox", "sh", "-c", script)
    until(lambda: state(fresh_engine, "well", "{{.State.Health.Status}}") == "healthy")
    assert json.loads(fresh_engine.docker("inspect", "well").stdout)[0]["Orlop"] == {
        "HealthOnFailure": "restart"
    }
    fresh_engine.kill()
    fresh_engine.start()
    assert state(fresh_engine, "well", "{{.State.Health.Status}}") == "healthy"

    fresh_engine.docker("exec", "well", "rm", "/tmp/well")
    until(lambda: state(fresh_engine, "well", "{{.RestartCount}} {{.State.Health.Status}}") == "1 healthy")

    assert len(until(lambda: health_actions(fresh_engine, "well"))) == 1


def test_no_healthcheck_is_none(engine):
    engine.docker(*RUN, "--name", "plain", "--no-healthcheck", "busybox", "sleep", "1000")

    assert state(engine, "plain", "{{.State.Health}}") == "<nil>"


def test_a_probe_that_hangs_is_cut_off(engine):
    words = (
        "--health-cmd",
        "echo half; sleep 1000",
        "--health-interval",
        "50ms",
        "--health-timeout",
        "200ms",
    )
    engine.docker(*RUN, "--name", "slow", *words, "busybox", "sleep", "1000")

    log = until(lambda: json.loads(state(engine, "slow", "{{json .State.Health.Log}}")))

    assert log[0]["Output"] == "Health check exceeded timeout (200ms): half\n"
    assert log[0]["ExitCode"] == -1


# amendments


def test_a_container_keeps_its_id_and_files_when_its_settings_change(engine):
    script = "echo [$A][$B]; touch /own; ls -d /data /cache; sleep 1000"
    words = ("-e", "A=1", "-v", "/cache", "--name", "web")
    web = engine.docker(*RUN, *words, "busybox", "sh", "-c", script).stdout.strip()
    until(lambda: "/cache" in engine.docker("logs", "web").stdout)
    cache = state(engine, "web", "{{(index .Mounts 0).Name}}")

    said = engine.orlop("update", "--env-add", "B=2", "--env-rm", "A", "--volume-add", "keep:/data", "web")
    assert "started again" in said.stderr
    now = json.loads(engine.docker("inspect", "web").stdout)[0]
    assert "A=1" in now["Config"]["Env"]
    assert [mount["Destination"] for mount in now["Orlop"]["Pending"]["Mounts"]] == ["/cache", "/data"]
    assert refusal(engine, "volume", "rm", "keep").startswith("remove keep: volume is in use")
    engine.orlop(
        "update", "--mount-rm", "/cache", "--publish-add", "8080:80", "--apply", "--time", "0", "web"
    )

    until(lambda: "[][2]" in engine.docker("logs", "web").stdout)
    now = json.loads(engine.docker("inspect", "web").stdout)[0]
    assert now["Id"] == web
    assert [mount["Destination"] for mount in now["Mounts"]] == ["/data"]
    assert now["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    assert "Orlop" not in now
    engine.docker("exec", "web", "test", "-e", "/own")
    engine.docker("volume", "inspect", cache)
    refused = engine.orlop("update", "--env-rm", "NOPE", "web", check=False)
    assert (refused.returncode, refused.stderr.strip()) == (
        1,
        "Error response from engine: the container has no environment variable 'NOPE'",
    )
    engine.docker("rm", "-f", "web")
    engine.docker("volume", "rm", "keep", cache)


@pytest.mark.parametrize(
    ("failpoint", "is_done"), [("container.update.before-row", False), ("container.update.row-written", True)]
)
def test_an_amendment_that_is_cut_off_is_whole_or_nothing(fresh_engine, failpoint, is_done):
    fresh_engine.docker("create", "--network", "none", "--name", "web", "busybox", "env")
    fresh_engine.environ = {"ORLOP_FAILPOINTS": f"{failpoint}=crash"}
    fresh_engine.restart()
    fresh_engine.orlop("update", "--env-add", "B=2", "--volume-add", "/data", "web", check=False)
    fresh_engine.process.wait(DEADLINE_S)
    fresh_engine.process, fresh_engine.environ = None, {}
    fresh_engine.start()

    found = json.loads(fresh_engine.docker("inspect", "web").stdout)[0]

    assert ("B=2" in found["Config"]["Env"], len(found["Mounts"])) == (is_done, int(is_done))
    assert ("B=2" in fresh_engine.docker("start", "-a", "web").stdout) is is_done
    fresh_engine.docker("rm", "-v", "web")
    fresh_engine.docker("volume", "prune", "-f")


def test_the_other_verbs_of_our_client(engine, tmp_path):
    engine.docker(*RUN, "--name", "web", "busybox", "sleep", "1000")

    engine.orlop("export", "-o", tmp_path / "root.tar", "web")
    assert (tmp_path / "root.tar").stat().st_size > 1 << 16
    lines = engine.orlop("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "web").stdout
    assert lines == "web 1\n"
    assert engine.orlop("port", "web").stdout == ""
    assert engine.orlop("update", "--pids-limit", "55", "web").stdout == "web\n"
    assert state(engine, "web", "{{.HostConfig.PidsLimit}}") == "55"
    engine.orlop("stop", "-t", "0", "web")
    assert "Total reclaimed space" in engine.orlop("container", "prune", "-f").stdout
    assert engine.docker("ps", "-aq").stdout == ""


# wait, names


def test_the_three_conditions_of_wait(engine):
    api = engine.api()
    made = api.containers.create("busybox", ["sh", "-c", "exit 4"], network_mode="none", auto_remove=True)
    assert made.wait(condition="not-running")["StatusCode"] == 0  # it never ran
    url = f"{api.api.base_url}/containers/{made.id}/wait"
    # the head of the answer comes when the waiter is known
    waits = [api.api.post(url, params={"condition": name}, stream=True) for name in ("next-exit", "removed")]

    made.start()

    assert [answer.json()["StatusCode"] for answer in waits] == [4, 4]
    with pytest.raises(docker.errors.NotFound):
        made.reload()
    other = api.containers.create("busybox", "true", network_mode="none")
    with pytest.raises(docker.errors.APIError, match='invalid condition: "soon"'):
        other.wait(condition="soon")


def test_names_come_before_prefixes_and_prefixes_must_be_clear(engine):
    first = engine.docker("create", "--network", "none", "busybox").stdout.strip()
    engine.docker("create", "--network", "none", "--name", first[:8], "busybox")
    assert state(engine, first[:8], "{{.Name}}") == f"/{first[:8]}"
    assert state(engine, first, "{{.Id}}") == first
    assert state(engine, first[:9], "{{.Id}}") == first
    made = {
        first,
        *(engine.docker("create", "--network", "none", "busybox").stdout.strip() for _ in range(17)),
    }
    twins = next(digit for digit in "0123456789abcdef" if sum(item.startswith(digit) for item in made) > 1)

    assert refusal(engine, "start", twins) == f"Multiple IDs found with provided prefix: {twins}"


@pytest.mark.parametrize("words", [("--pull", "sometimes"), ("--rm", "--restart", "always")])
def test_contradictions_are_told_in_docker_s_words(engine, words):
    theirs = engine.docker("run", *words, "busybox", check=False)
    ours = engine.orlop("run", *words, "busybox", check=False)

    assert (ours.returncode, theirs.returncode) == (125, 125)
    assert ours.stderr.strip().removeprefix("orlop: ") in theirs.stderr
