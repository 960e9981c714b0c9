"""The fixed target of listeners with capture = "none": resolved once, at the start, and never one of our own listeners.

Owns: the choice among a name's addresses.
Never here: a look-up while flows run; a target for a captured connection.
"""

import socket
from collections.abc import Sequence

from sidecar.config import Config
from sidecar.config.network_kinds import canonical, family_of
from sidecar.errors import BAD_CONFIG, Problem, RelayError

Address = tuple[str, int]
MAPPED = "::ffff:"  # an IPv4 address in IPv6 clothes


def resolve_target(config: Config) -> Address | None:
    """The target's first IPv4 address, else its first; None when there is no target. RelayError (78) when it has no address."""
    target = config.relay.target
    if target is None:
        return None
    try:
        found = socket.getaddrinfo(target.host.encode(), target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        words = error.strerror if isinstance(error, socket.gaierror) else str(error)
        problem = Problem(
            config.where("relay.target"), "a host that can be resolved", f"{target.host}: {words}", "an address needs no DNS"
        )
        raise RelayError(problem, exit_status=BAD_CONFIG) from None
    host, port, *rest = min(found, key=lambda info: info[0] != socket.AF_INET)[4]
    scope = rest[1] if rest else 0
    bare = str(host).partition("%")[0]
    return (f"{bare}%{scope}" if scope else _unmapped(bare)), int(port)


def refuse_own_listener(config: Config, target: Address, own_networks: Sequence[str]) -> None:
    """RelayError (78) when the target is where this relay listens: it would talk to itself without end."""
    host, port = target
    unspecified = host in ("0.0.0.0", "::")  # connect(2) takes them for this machine
    if not unspecified and not any(_contains(network, host) for network in own_networks):
        return
    for index, listener in enumerate(config.listeners):
        if listener.port == port and (unspecified or listener.address in ("", "0.0.0.0", "::", host)):
            problem = Problem(config.where("relay.target"), "another place than this relay", f"listener[{index}], port {port}")
            raise RelayError(problem, exit_status=BAD_CONFIG)


def _unmapped(host: str) -> str:
    """::ffff:127.0.0.1 is 127.0.0.1."""
    bare = canonical(host)
    return bare.removeprefix(MAPPED) if "." in bare else bare


def _contains(network: str, host: str) -> bool:
    base, _, bits = network.partition("/")
    bare = host.partition("%")[0]
    family = family_of(base)
    if family is None or family != family_of(bare):
        return False
    packed = [socket.inet_pton(family, text) for text in (base, bare)]
    shift = len(packed[0]) * 8 - int(bits)
    first, second = (int.from_bytes(address, "big") >> shift for address in packed)
    return first == second
