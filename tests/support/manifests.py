"""The manifests of deploy/, as data: their objects, their containers, and the relay's configuration that they carry.

Owns: the reading of these files, and finding a place in them. Never here: a judgement (manifest_checks); a substitution (pod).
"""

import copy
import tempfile
from pathlib import Path
from typing import Any

import yaml

from sidecar.config import Config, Flags, load_config

DEPLOY = Path(__file__).parents[2] / "deploy"
NAMES = ("pod.yaml", "pod-tproxy.yaml", "pod-native-sidecar.yaml")
SIDECAR, RULES, APP = "relay-sidecar", "relay-rules", "app"

Object = dict[str, Any]


class Manifest:
    """One file: a ConfigMap and a Pod."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.objects: list[Object] = list(yaml.safe_load_all((DEPLOY / name).read_text()))

    def one(self, kind: str) -> Object:
        """The object of this kind."""
        (found,) = (each for each in self.objects if each["kind"] == kind)
        return found

    @property
    def spec(self) -> Object:
        return self.one("Pod")["spec"]

    @property
    def containers(self) -> list[Object]:
        """All of them, in the order in which they start."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def container(self, name: str) -> Object:
        return next(each for each in self.containers if each["name"] == name)

    @property
    def is_native(self) -> bool:
        """Whether the relay is an init container that goes on."""
        return any(each["name"] == SIDECAR for each in self.spec.get("initContainers", []))

    @property
    def toml(self) -> str:
        return str(self.one("ConfigMap")["data"]["relay.toml"])

    def config(self) -> Config:
        """What the relay makes of its file; RelayError as it would say it."""
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(self.toml)
            file.flush()
            return load_config(Flags(config=file.name), {})

    def at(self, path: str) -> Any:
        """What stands at a place, such as Pod/spec/containers/app/image: members of a list go by their name or number."""
        kind, *way = path.split("/")
        place: Any = self.one(kind)
        for step in way:
            place = place[_key(place, step)]
        return place

    def changed(self, path: str, value: object) -> "Manifest":
        """A copy with another value at this place, or, with None, without what stands there."""
        made = copy.deepcopy(self)
        way, _, last = path.rpartition("/")
        place = made.at(way)
        if value is None:
            del place[_key(place, last)]
        else:
            place[_key(place, last)] = value
        return made


def _key(place: Any, step: str) -> str | int:
    if isinstance(place, dict):
        return step
    if step.isdigit():
        return int(step)
    return [each.get("name") for each in place].index(step)


def hook(container: Object, name: str) -> list[str]:
    """The command of a lifecycle hook; nothing when there is none."""
    return list(container.get("lifecycle", {}).get(name, {}).get("exec", {}).get("command", []))


def added_capabilities(container: Object) -> list[str]:
    """What it gets besides nothing, as Kubernetes does it: user 0 alone has it in effect."""
    return sorted(container.get("securityContext", {}).get("capabilities", {}).get("add", []))
