"""The verbs: name -> module that holds `COMMAND` and `run`, and a line for the help. Data only.

`container ls`, `image rm` and the like are the same verbs under docker's longer names.
"""

from __future__ import annotations

__all__ = ["ALIASES", "GROUPS", "VERBS"]

VERBS: dict[str, tuple[str, str]] = {
    "attach": ("attach", "Attach local standard input, output, and error streams to a running container"),
    "build": ("build", "Build an image from a Dockerfile"),
    "commit": ("commit", "Create a new image from a container's changes"),
    "completion": ("completion", "Print a completion script for bash, zsh or fish"),
    "copy": ("remote", "Copy an image from one registry to another without storing it"),
    "cp": ("cp", "Copy files/folders between a container and the local filesystem"),
    "create": ("create", "Create a new container"),
    "delete-remote": ("remote", "Delete tags or manifests from their registry"),
    "diff": ("state", "Inspect changes to files or directories on a container's filesystem"),
    "doctor": ("doctor", "Show what this host can and cannot enforce"),
    "events": ("events", "Get real time events from the engine"),
    "exec": ("exec", "Execute a command in a running container"),
    "export": ("export", "Export a container's filesystem as a tar archive"),
    "fsck": ("fsck", "Check what is stored, while the engine is stopped"),
    "history": ("history", "Show the history of an image"),
    "image-attestations": ("image_attestations", "image attestations: SBOM and provenance of an image"),
    "image-diff": ("image_diff", "image diff: how an image differs from another"),
    "image-gc": ("image_keep", "image gc: remove the longest unused images and build cache"),
    "image-layers": ("image_layers", "image layers: what every layer adds, changes and wastes"),
    "image-mount": ("image_keep", "image mount: show an image as a read-only directory"),
    "image-pin": ("image_keep", "image pin: keep images from automatic removal"),
    "image-unmount": ("image_keep", "image unmount: take mounted images away"),
    "image-unpin": ("image_keep", "image unpin: let images be removed automatically again"),
    "images": ("images", "List images"),
    "info": ("info", "Display system-wide information"),
    "inspect": ("inspect", "Return low-level information on containers and images"),
    "kill": ("kill", "Kill one or more running containers"),
    "load": ("load", "Load an image from a tar archive or STDIN"),
    "login": ("login", "Authenticate to a registry"),
    "logout": ("login", "Log out from a registry"),
    "logs": ("logs", "Fetch the logs of a container"),
    "manifest": ("remote", "Show the manifest or index of an image in its registry"),
    "pause": ("state", "Pause all processes within one or more containers"),
    "port": ("port", "List port mappings or a specific mapping for the container"),
    "prune": ("prune", "Remove all stopped containers"),
    "ps": ("ps", "List containers"),
    "pull": ("pull", "Download an image from a registry"),
    "push": ("push", "Upload an image to a registry"),
    "referrers": ("remote", "List what refers to an image in its registry"),
    "registry": ("registry", "Run a registry server in the foreground"),
    "rename": ("state", "Rename a container"),
    "restart": ("stop", "Restart one or more containers"),
    "rm": ("rm", "Remove one or more containers"),
    "rmi": ("rmi", "Remove one or more images"),
    "run": ("run", "Create and run a new container from an image"),
    "save": ("save", "Save one or more images to a tar archive (streamed to STDOUT by default)"),
    "search": ("search", "Search Docker Hub for images"),
    "start": ("start", "Start one or more stopped containers"),
    "stats": ("stats", "Display a live stream of container(s) resource usage statistics"),
    "stop": ("stop", "Stop one or more running containers"),
    "system": ("system", "Disk usage and clean-up"),
    "tag": ("tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    "tags": ("remote", "List the tags of a repository in a registry"),
    "top": ("state", "Display the running processes of a container"),
    "unpause": ("state", "Unpause all processes within one or more containers"),
    "update": ("update", "Update configuration of one or more containers"),
    "version": ("version", "Show the Orlop version information"),
    "volume-browse": ("volume_copy", "volume browse: list the files in a volume"),
    "volume-clone": ("volume_copy", "volume clone: copy a volume into a new one"),
    "volume-create": ("volume", "volume create: create a volume"),
    "volume-export": ("volume_copy", "volume export: write the files of a volume as a tar archive"),
    "volume-import": ("volume_copy", "volume import: unpack a tar archive into a volume"),
    "volume-inspect": ("volume", "volume inspect: display detailed information on one or more volumes"),
    "volume-ls": ("volume", "volume ls: list volumes"),
    "volume-prune": ("volume", "volume prune: remove unused local volumes"),
    "volume-rename": ("volume_copy", "volume rename: rename a volume that no container refers to"),
    "volume-rm": ("volume", "volume rm: remove one or more volumes"),
    "volume-snapshot": (
        "volume_copy",
        "volume snapshot: copy a volume, named after the time",
    ),
    "wait": ("wait", "Block until containers stop, then print their exit codes"),
}

GROUPS: dict[str, dict[str, str]] = {
    "container": {
        name: name
        for name in (
            *("attach", "commit", "cp", "create", "diff", "exec", "export", "inspect", "kill", "logs"),
            *("pause", "port", "prune", "rename", "restart", "rm", "run", "start", "stats", "stop", "top"),
            *("unpause", "update", "wait"),
        )
    }
    | {"ls": "ps", "list": "ps", "ps": "ps"},
    "image": {name: name for name in ("build", "history", "inspect", "load", "pull", "push", "save", "tag")}
    | {"ls": "images", "list": "images", "rm": "rmi", "remove": "rmi"}
    | {
        name: f"image-{name}"
        for name in ("attestations", "diff", "gc", "layers", "mount", "pin", "unmount", "unpin")
    }
    | {name: name for name in ("copy", "delete-remote", "referrers", "tags")},
    "volume": {
        name: f"volume-{name}"
        for name in (
            *("browse", "clone", "create", "export", "import", "inspect", "ls", "prune", "rename", "rm"),
            "snapshot",
        )
    }
    | {"list": "volume-ls", "remove": "volume-rm"},
}

ALIASES: dict[str, str] = {"list": "ps"}
