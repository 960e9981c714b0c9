"""A relay with a place to stand: networks, rules, the process, and a path that connections take through it.

Owns: which listeners, rules and addresses belong together. A scenario is given a World and does not know whether its
connections are redirected, tproxied or sent to a fixed target.
Never: a scenario.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support import rules
from tests.support.netns import Namespace, Place
from tests.support.network import CLIENT, LOOPBACK, POD, POD_TO_SERVER, SERVER, V4, V6, Network
from tests.support.path import Path
from tests.support.peers import text_of
from tests.support.relay import NO_ENDPOINTS, Relay

ANY = {V4: "0.0.0.0", V6: "::"}
APP_PORT = 8080

Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Way:
    """How connections come to the relay, and over which family."""

    capture: str = "redirect"  # redirect | tproxy | none
    family: int = V4
    direction: str = "outbound"  # outbound | inbound | gateway
    backend: str = "nft"  # nft | iptables

    def __str__(self) -> str:
        words = [self.capture, f"v{self.family}"]
        words += [self.direction] if self.direction != "outbound" else []
        words += [self.backend] if self.backend != "nft" else []
        return "-".join(words)


@dataclass(frozen=True)
class World:
    """What a scenario is given."""

    way: Way
    relay: Relay
    path: Path
    network: Network | None

    def apply_rules(self) -> None:
        """The rules of this way, once more."""
        apply_rules(self.captured.pod, self.way, self.relay.config)

    @property
    def captured(self) -> Network:
        """The namespaces, where there are some."""
        assert self.network is not None
        return self.network

    @property
    def origins(self) -> Namespace:
        """The namespace of the origins."""
        assert isinstance(self.path.far, Namespace)
        return self.path.far

    def ended(self, client: str) -> str:
        """Why the flow of this client ended."""
        return str(self.relay.access(client=client)["reason"])


def _merged(config: Settings, settings: Settings) -> dict[str, dict[str, Any]]:
    return {name: {**config.get(name, {}), **settings.get(name, {})} for name in {**config, **settings}}


@contextmanager
def _running(way: Way, relay: Relay, path: Path, network: Network | None) -> Iterator[World]:
    """Hand the world over; when the scenario is done, hold the relay to what must be true after every case."""
    with relay, path:
        relay.await_ready()
        if way.capture == "none":
            path.dial_to = relay.address_of("loop")
        yield World(way, relay, path, network)
        path.close()
        relay.finish()


@contextmanager
def looped(
    family: int = V4, settings: Settings | None = None, *, beside: Sequence[str] = (), **process: Any
) -> Iterator[World]:
    """A relay on loopback with a fixed target: no privilege, no rules. `beside` names listeners that are like its one."""
    here = Place()
    way = Way(capture="none", family=family)
    host = LOOPBACK[family]
    path = Path(here, here, family, host, (host, 0))
    listener: dict[str, Any] = {"name": "loop", "direction": "outbound", "port": 0, "capture": "none", "address": host}
    tables = _merged({"relay": {"target": text_of(path.origin)}}, settings or {})
    listener |= tables.pop("listener", {})
    relay = Relay(here, [listener, *({**listener, "name": name} for name in beside)], tables, **process)
    with _running(way, relay, path, None) as world:
        yield world


def apply_rules(pod: Namespace, way: Way, config: Mapping[str, Any]) -> None:
    """The rules that bring this way's connections to a relay with this configuration."""
    if way.direction == "gateway" and way.capture == "redirect":
        rules.apply_gateway_redirect(pod)
        return
    links = {"gateway_interfaces": ["to-client"]} if way.direction == "gateway" else {}
    tables = {name: config[name] for name in ("relay", "listener", "admin") if name in config}
    rules.apply(pod, {**tables, "rules": {"backend": way.backend, **links, **config.get("rules", {})}})


def listeners(way: Way, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those that the rule sets of this way know; options are for the ones of its direction."""
    ports = {"outbound": rules.OUTBOUND_PORT, "inbound": rules.INBOUND_PORT, "gateway": rules.INBOUND_PORT}
    directions = ["gateway"] if way.direction == "gateway" else ["outbound", "inbound"]
    tables: list[dict[str, Any]] = [
        {"name": name, "direction": name, "port": ports[name], "capture": way.capture} for name in directions
    ]
    tables[directions.index(way.direction)].update(options)
    return tables


@contextmanager
def captured(way: Way, settings: Settings | None = None, sysctls: Mapping[str, str] = {}, **process: Any) -> Iterator[World]:
    """A relay in the middle of a network of its own, as uid 1337, with rules that bring connections to it.

    The sysctls are the pod's, set before the relay has any socket.
    """
    with Network.made() as network:
        for key, value in sysctls.items():
            network.pod.sysctl(key, value)
        near, dial_from, far, dial_to = {
            "outbound": (network.pod, POD_TO_SERVER, network.server, SERVER),
            "inbound": (network.client, CLIENT, network.pod, POD),
            "gateway": (network.client, CLIENT, network.server, SERVER),
        }[way.direction]
        path = Path(near, far, way.family, dial_from[way.family], (ANY[way.family], APP_PORT))
        path.dial_to = (dial_to[way.family], APP_PORT)
        tables = dict(settings or {})
        bound = listeners(way, tables.pop("listener", {}))
        apply_rules(network.pod, way, _merged({"admin": NO_ENDPOINTS}, tables) | {"listener": bound})
        relay = Relay(network.pod, bound, tables, **process)
        with _running(way, relay, path, network) as world:
            yield world
