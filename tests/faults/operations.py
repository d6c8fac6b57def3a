"""The operations that are interrupted: each is prepared, done, checked and undone, again and again.

Every round works on things of its own (the number makes names and contents), so that nothing
that an interrupted round left makes the next one shorter.
"""

from __future__ import annotations

import base64
import json

from fault_api import Answer
from fault_world import BASE, World, archive_of, layers_of, push_directly, tar_of

from support import images

__all__ = ["OPERATIONS", "Operation"]


class Operation:
    """One kind of request. `is_deletion`: what is interrupted may as well have happened."""

    is_deletion = False

    def __init__(self, world: World, registry: str, number: int):
        self.world, self.api, self.registry, self.number = world, world.api, registry, number
        self.name = f"{type(self).__name__.lower()}-{number}"

    def prepare(self) -> None:
        """What has to be there before; never interrupted."""

    def run(self) -> Answer:
        """Do it; the answer of the request that failed, or of the last one. May raise EngineDied."""
        raise NotImplementedError

    def check_done(self) -> None:
        """It has happened."""

    def undo(self) -> None:
        """Take away what the round made; may be repeated."""
        self.api("DELETE", f"/images/{self.name}", force=1)


class Pull(Operation):
    def prepare(self):
        layers = [images.busybox_layer(), *layers_of(self.name, 1_200_000)]
        self.digest = push_directly(self.registry, self.name, "latest", layers)

    def run(self):
        return self.api("POST", "/images/create", fromImage=f"{self.registry}/{self.name}", tag="latest")

    def check_done(self):
        found = self.api.ok("GET", f"/images/{self.registry}/{self.name}/json").json
        assert found["RepoDigests"] == [f"{self.registry}/{self.name}@{self.digest}"]
        self.world.check_runs(f"{self.registry}/{self.name}")

    def undo(self):
        self.api("DELETE", f"/images/{self.registry}/{self.name}", force=1)


class Load(Operation):
    def run(self):
        return self.api("POST", "/images/load", archive_of(self.name, self.name))

    def check_done(self):
        self.world.check_runs(self.name)


class Import(Operation):
    def run(self):
        return self.api(
            "POST", "/images/create", tar_of(bin_x=self.name.encode()), fromSrc="-", repo=self.name
        )

    def check_done(self):
        assert self.api.ok("GET", f"/images/{self.name}/json").json["RepoTags"] == [f"{self.name}:latest"]


class Build(Operation):
    DOCKERFILE = b"FROM busybox\nCOPY data /data\nRUN cat /data > /copy\nLABEL done=yes\n"

    def run(self):
        context = tar_of(Dockerfile=self.DOCKERFILE, data=self.name.encode())
        return self.api("POST", "/build", context, t=self.name, q=0)

    def check_done(self):
        found = self.api.ok("GET", f"/images/{self.name}/json").json
        assert found["Config"]["Labels"] == {"done": "yes"}
        self.world.check_runs(self.name)

    def undo(self):
        super().undo()
        self.api("POST", "/build/prune", all=1)


class Commit(Operation):
    def prepare(self):
        self.container = self.world.create(self.name, f"echo {self.name} > /made")
        self.world.start_and_wait(self.container)

    def run(self):
        return self.api("POST", "/commit", {}, container=self.container, repo=self.name)

    def check_done(self):
        self.world.check_runs(self.name)

    def undo(self):
        super().undo()
        self.api("DELETE", f"/containers/{self.container}", force=1)


class Run(Operation):
    def run(self):
        body = {
            "Image": BASE,
            "Cmd": ["sh", "-c", f"echo {self.name}; exit 5"],
            "HostConfig": {"NetworkMode": "none"},
        }
        answer = self.api("POST", "/containers/create", body, name=self.name)
        if answer.status == 409:  # made before the engine died
            answer = Answer(201, b"")
        for step in ("start", "wait"):
            if answer.status < 400:
                answer = self.api("POST", f"/containers/{self.name}/{step}")
        return answer

    def check_done(self):
        state = self.world.inspect(self.name)["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 5)
        lines = self.world.logs(self.name).split()
        assert lines, "the output is lost"
        assert set(lines) == {self.name.encode()}

    def undo(self):
        self.api("DELETE", f"/containers/{self.name}", force=1)


class Amend(Operation):
    """Another variable and another volume for a container that is there."""

    def prepare(self):
        self.container = self.world.create(self.name, "test -d /data && echo $MARK")

    def run(self):
        add = {"Env": [f"MARK={self.name}"], "Binds": [f"{self.name}:/data"]}
        answer = self.api("POST", f"/containers/{self.container}/update", {"Orlop": {"Add": add}})
        # the variable and the volume came together, before the engine died
        return Answer(200, b"{}") if "Duplicate mount point" in answer.error else answer

    def check_done(self):
        assert self.world.start_and_wait(self.container) == 0
        assert self.world.logs(self.name).split() == [self.name.encode()]

    def undo(self):
        self.api("DELETE", f"/containers/{self.container}", force=1)
        self.api("DELETE", f"/volumes/{self.name}", force=1)


class Remove(Operation):
    """`rm -f` of a container that runs and wrote something."""

    is_deletion = True

    def prepare(self):
        self.container = self.world.create(self.name, "mkdir /d; echo x > /d/x; sleep 1000")
        self.api.ok("POST", f"/containers/{self.container}/start")

    def run(self):
        answer = self.api("DELETE", f"/containers/{self.container}", force=1)
        return Answer(204, b"") if answer.status == 404 else answer

    def check_done(self):
        assert self.api("GET", f"/containers/{self.container}/json").status == 404

    def undo(self):
        self.run()


class RemoveImage(Operation):
    is_deletion = True

    def prepare(self):
        self.api.ok("POST", "/images/load", archive_of(self.name, self.name))

    def run(self):
        answer = self.api("DELETE", f"/images/{self.name}")
        return Answer(200, b"[]") if answer.status == 404 else answer

    def check_done(self):
        assert self.api("GET", f"/images/{self.name}/json").status == 404

    def undo(self):
        self.run()


class Prune(Operation):
    """Unused images that others share layers with; containers are the keeper's business."""

    is_deletion = True

    def prepare(self):
        for part in ("a", "b"):
            self.api.ok("POST", "/images/load", archive_of(f"{self.name}-{part}", self.name + part))

    def run(self):
        return self.api("POST", "/images/prune", filters=json.dumps({"dangling": ["false"]}))

    def check_done(self):
        assert [self.api("GET", f"/images/{self.name}-{part}/json").status for part in "ab"] == [404, 404]

    def undo(self):
        self.run()


class Push(Operation):
    def prepare(self):
        self.target = f"{self.registry}/{self.name}"
        self.api.ok("POST", "/images/load", archive_of(self.target, self.name))

    def run(self):
        auth = base64.urlsafe_b64encode(b"{}").decode()
        return self.api(
            "POST", f"/images/{self.target}/push", headers={"X-Registry-Auth": auth}, tag="latest"
        )

    def check_done(self):
        self.undo()
        self.api.ok("POST", "/images/create", fromImage=self.target, tag="latest")
        self.world.check_runs(self.target)

    def undo(self):
        self.api("DELETE", f"/images/{self.target}", force=1)


OPERATIONS = (Pull, Load, Import, Build, Commit, Run, Amend, Remove, RemoveImage, Prune, Push)
