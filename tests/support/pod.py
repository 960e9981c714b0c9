"""A manifest of deploy/ as a pod that runs, with what podman does otherwise than a kubelet put right.

Owns: the substitutions, all of them in `as_played`, and the kubelet's part: hooks and probes are done here, as the manifest has
them, because podman does none. Never: another change to a manifest; a container that the manifest does not have.
"""

import copy
import json
import socket
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli
import yaml

from tests.support.clock import DEADLINE, eventually
from tests.support.manifests import APP, SIDECAR, Manifest, hook
from tests.support.podman import IMAGE, Podman
from tests.support.toml import to_toml

HOST = "10.89.0.1"  # podman's first network, this side of it
PORT, UNCAPTURED = 80, 9090  # the app's: the manifest's, and one that the rules are told to leave alone
APP_SOURCE = Path(__file__).parents[1] / "pod" / "app.py"

Record = dict[str, Any]


def as_played(manifest: Manifest, directory: Path) -> Manifest:
    """The manifest as podman gets it. Everything else in it is what users apply."""
    made = copy.deepcopy(manifest)
    made.spec["restartPolicy"] = "Never"  # or podman starts the init container again and again
    for container in made.containers:
        container.update(image=IMAGE, imagePullPolicy="Never")
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            container.pop(probe, None)  # podman would ask systemd for a timer
    # The image is ours for its Python, and the user is nginx's.
    app = made.container(APP)
    app.update(command=["python3", "/app/app.py", str(PORT), str(UNCAPTURED)], securityContext={"runAsUser": 0})
    app["volumeMounts"] = [{"name": "app", "mountPath": "/app", "readOnly": True}]
    made.spec["volumes"].append({"name": "app", "hostPath": {"path": str(APP_SOURCE.parent), "type": "Directory"}})
    # A port to leave alone, to see that it is.
    toml = tomli.loads(manifest.toml)
    toml.setdefault("rules", {})["inbound_exclude_ports"] = [UNCAPTURED]
    made.one("ConfigMap")["data"]["relay.toml"] = to_toml(toml)
    # The kubelet makes an emptyDir with this mode; podman would copy what the image has there, with its owner.
    for volume in made.spec["volumes"]:
        if volume.pop("emptyDir", None) is not None:
            path = directory / volume["name"]
            path.mkdir()
            path.chmod(0o777)
            volume["hostPath"] = {"path": str(path), "type": "Directory"}
    if made.is_native:  # podman would wait for its end
        (relay,) = (each for each in made.spec["initContainers"] if each["name"] == SIDECAR)
        del relay["restartPolicy"]
        made.spec["initContainers"].remove(relay)
        made.spec["containers"].insert(0, relay)
    return made


class Pod:
    """It runs from start() until close()."""

    def __init__(self, podman: Podman, manifest: Manifest, directory: Path) -> None:
        self.podman = podman
        self.manifest = manifest
        self.name = manifest.one("Pod")["metadata"]["name"]
        self.address = ""
        self._directory = directory

    def start(self) -> None:
        """Play it; it is ready when this returns."""
        file = self._directory / "played.yaml"
        file.write_text(yaml.safe_dump_all(as_played(self.manifest, self._directory).objects))
        self.podman.run("podman", "kube", "play", str(file))
        told = self.podman.run("podman", "inspect", "--format", "{{json .NetworkSettings.Networks}}", self.called(APP))
        networks = json.loads(told)
        (self.address,) = (network["IPAddress"] for network in networks.values())
        self.await_gate()

    def called(self, container: str) -> str:
        return f"{self.name}-{container}"

    def close(self) -> None:
        self.podman.run("podman", "pod", "rm", "--force", "--ignore", "--time", "0", self.name)

    # The kubelet's part.

    def await_gate(self) -> None:
        """What holds the app back until the relay is ready."""
        relay = self.manifest.container(SIDECAR)
        command = relay["startupProbe"]["exec"]["command"] if self.manifest.is_native else hook(relay, "postStart")
        self.execute(SIDECAR, command)
        assert eventually(lambda: self.ask("peer", port=UNCAPTURED, check=False)), self.logs(APP)

    def probe(self, kind: str) -> int:
        """The status that the relay's probe gets."""
        relay = self.manifest.container(SIDECAR)
        asked = relay[kind]["httpGet"]
        (port,) = (port["containerPort"] for port in relay["ports"] if port["name"] == asked["port"])
        with (
            self.podman.place.entered(),
            urllib.request.urlopen(f"http://{self.address}:{port}{asked['path']}", timeout=DEADLINE) as answer,
        ):
            return int(answer.status)

    def pre_stop(self) -> list[Any]:
        """Begin the hooks of all containers that the kubelet stops first."""
        names = (APP,) if self.manifest.is_native else (SIDECAR, APP)
        commands = {name: hook(self.manifest.container(name), "preStop") for name in names}
        return [
            self.podman.popen(["podman", "exec", self.called(name), *command], place=self.podman.place)
            for name, command in commands.items()
        ]

    def terminate(self, *containers: str) -> None:
        """SIGTERM, as the kubelet sends it to all at the same time."""
        self.podman.run("podman", "kill", "--signal", "TERM", *map(self.called, containers))

    def exit_statuses(self, *containers: str, within: float) -> list[int]:
        """Wait for their ends."""
        told = self.podman.run("podman", "wait", *map(self.called, containers), seconds=within)
        return [int(word) for word in told.split()]

    # What is inside.

    def execute(self, container: str, command: Sequence[str]) -> str:
        return self.podman.run("podman", "exec", self.called(container), *command)

    def status(self, container: str) -> dict[str, str]:
        """/proc/PID/status of its first process."""
        text = self.execute(container, ["cat", "/proc/1/status"])
        return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}

    def logs(self, container: str) -> list[str]:
        """The lines that it wrote on stdout."""
        return self.podman.run("podman", "logs", self.called(container)).splitlines()

    def records(self, **fields: object) -> list[Record]:
        """The relay's records with these fields."""
        records = map(json.loads, self.logs(SIDECAR))
        return [record for record in records if fields.items() <= record.items()]

    def await_record(self, **fields: object) -> Record:
        found = eventually(lambda: self.records(**fields))
        assert found, f"no record with {fields}: {self.logs(SIDECAR)}"
        return found[0]

    # Traffic.

    def connect(self, port: int = PORT) -> socket.socket:
        with self.podman.place.entered():
            return socket.create_connection((self.address, port), DEADLINE)

    def ask(self, question: str, *, port: int = PORT, check: bool = True) -> str:
        """The app's answer, from outside of the pod."""
        try:
            with self.connect(port) as sock, sock.makefile("rb") as answer:
                sock.sendall(f"{question}\n".encode())
                return answer.read().decode()
        except OSError:
            if check:
                raise
            return ""

    def listen(self) -> socket.socket:
        """A server outside of the pod."""
        with self.podman.place.entered():
            return socket.create_server((HOST, 0))
