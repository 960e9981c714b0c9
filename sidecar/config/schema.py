"""The schema: every table and key of the configuration, its kind, default and meaning, each told once.

Owns: the key set of etc/relay.toml. Everything that knows a key (reading, help, the example file, reload) derives it from here.
Never here: files, environment, checks of one key against another (load).
"""

from collections.abc import Callable, Mapping

from sidecar.config.kinds import (
    Kind,
    Misfit,
    all_or,
    anything_by_name,
    array,
    boolean,
    by_name,
    choice,
    duration,
    integer,
    microseconds,
    pattern,
    shown,
    size,
    text_of,
)
from sidecar.config.network_kinds import (
    HIGHEST_PORT,
    all_or_port_ranges,
    endpoint,
    listen_address,
    network,
    port_ranges,
    ruled_interface,
)
from sidecar.config.sections import REQUIRED, Section, key
from sidecar.users import HIGHEST_ID, Account, find_group, find_user

MOST_LISTENERS = 64  # the engine's table of listeners
MOST_ELEMENTS = 64  # and of elements
LONGEST_SOCKET_PATH = 107  # sun_path of sockaddr_un, with its NUL
QUOTES = 'write "{}"'
MARK_MASK = 0xFFF  # the bits of a packet's mark that are ours; the others are left as they are
KERNEL_TABLES = ((253, "table default"), (254, "table main"), (255, "table local"))


def _account_kind(what: str, find: Callable[[str], Account | None], table: str) -> Kind[Account]:
    def take(value: object) -> Account:
        account = find(text_of(value, number_hint=QUOTES))
        if account is None:
            raise Misfit(shown(value), next_step=f"a number needs no entry in {table}")
        return account

    return Kind(f"the name or number of a {what}, in quotes", take, lambda account: account.name)


USER = _account_kind("user", find_user, "/etc/passwd")
GROUP = _account_kind("group", find_group, "/etc/group")


def _id_kind(what: str, names: Kind[Account]) -> Kind[int]:
    numbers = integer(0, HIGHEST_ID)

    def take(value: object) -> int:
        return names.take(value).id if isinstance(value, str) else numbers.take(value)

    return Kind(f"the name of a {what}, or a number from 0 to {HIGHEST_ID}", take)


def _networks() -> Kind[tuple[str, ...]]:
    return array(network(), 'networks such as "10.0.0.0/8"', most=256)


def _interfaces() -> Kind[tuple[str, ...]]:
    return array(ruled_interface(), "interface names", most=64)


def _socket_path_kind() -> Kind[str]:
    def take(value: object) -> str:
        text = text_of(value)
        if text and (not text.startswith("/") or "\0" in text or len(text.encode()) > LONGEST_SOCKET_PATH):
            raise Misfit(shown(text))
        return text

    return Kind(f'an absolute path of at most {LONGEST_SOCKET_PATH} bytes, or "": off', take)


class Relay(Section):
    """[relay]: the process and its limits."""

    user = key(USER, "1337", "who the relay runs as; the rules exempt this user, this group and the mark")
    group = key(GROUP, "1337", "the group that the relay runs as")
    workers = key(integer(0, 256), 0, "threads that move bytes; 0: one per CPU that this process may use")
    element_workers = key(
        integer(1, 64), 1, "threads for flows with elements, beside the others; none where there are no elements"
    )
    max_flows = key(integer(1, 1_000_000), 50000, "flows at once; fewer where the limit on open files is lower", live=True)
    connect_timeout = key(duration("10ms", "1h"), "10s", "how long the origin may take to accept a connection", live=True)
    idle_timeout = key(duration("10ms", "8760h", zero="never"), "1h", "a flow ends when no byte moved for so long", live=True)
    half_close_timeout = key(
        duration("10ms", "8760h", zero="never"), "1h", "the same for a flow of which one side has sent its FIN", live=True
    )
    drain_timeout = key(
        duration("10ms", "24h", zero="cut at once"),
        "25s",
        "how long flows may go on after SIGTERM before they are reset",
        live=True,
    )
    target = key(
        endpoint('"host:port", "[v6]:port", or "": none', names=True, lowest_port=1),
        "",
        'where listeners with capture = "none" connect to; of a name\'s addresses the first IPv4 one is taken (TARGET_ADDR)',
    )
    keepalive_time = key(
        duration("1s", "9h", zero="no keepalive", whole_seconds=True),
        "2m",
        "silence on a connection before the kernel probes it",
    )
    keepalive_interval = key(duration("1s", "9h", whole_seconds=True), "15s", "time between two such probes")
    keepalive_probes = key(integer(1, 127), 4, "probes without an answer until the connection counts as dead")
    max_pipes = key(
        integer(0, 1024),
        32,
        "kernel pipes of 256 KiB for splicing, two for each worker at least, or 0: none; "
        "all relays of one user on a node share a budget of 256",
    )
    max_pending = key(
        size("64KiB", "64GiB"), "64MiB", "bytes that were read and not yet taken by the other side, over all flows"
    )
    busy_poll = key(
        microseconds("1000us", zero="sleep at once"),
        "0s",
        "how long a worker looks for news before it sleeps: faster answers, for the CPU time that it takes",
        live=True,
    )
    backlog = key(integer(1, 65535), 4096, "connections that wait to be accepted; the kernel caps it at net.core.somaxconn")


class Listener(Section):
    """[[listener]]: one bound port."""

    name = key(
        pattern("1 to 64 letters, digits, dots, dashes or underscores", r"[A-Za-z0-9._-]{1,64}"),
        REQUIRED,
        "what logs, metrics and LISTEN_FDNAMES call it",
    )
    direction = key(
        choice("outbound", "inbound", "gateway"),
        REQUIRED,
        "who is on this machine: the clients (outbound), the origins (inbound), or neither (gateway: the relay is on the way)",
    )
    port = key(integer(0, HIGHEST_PORT), REQUIRED, 'the TCP port; 0, with capture = "none" alone: any free one')
    capture = key(
        choice("redirect", "tproxy", "none"),
        "redirect",
        "how connections get here: by a REDIRECT rule, by a TPROXY rule, or directly (then relay.target is the origin)",
    )
    protocol = key(choice("tcp", "udp"), "tcp", "what is relayed; udp is not there yet")
    address = key(listen_address(), "", "where to listen; both families by default, an explicit :: takes IPv4 too")
    preserve_client = key(
        boolean(), False, "the origin sees the client's address instead of the relay's; works with tproxy, inbound or gateway"
    )


class Element(Section):
    """[[element]]: a Python class that sees the bytes of flows."""

    name = key(
        pattern("1 to 64 letters, digits, dots, dashes or underscores", r"[A-Za-z0-9._-]{1,64}"),
        REQUIRED,
        "what logs, metrics and access records call it",
        live=True,
    )
    use = key(
        pattern('"package.module:Class" or "./file.py:Class"', r"[^:]+:\w+"),
        REQUIRED,
        "the class; a path begins where this file is",
        live=True,
    )
    listeners = key(
        array(pattern("the name of a listener", r"[A-Za-z0-9._-]{1,64}"), "names of listeners", most=64),
        [],
        "whose flows it sees; empty: all. The elements of a listener are asked in the order in which they stand here",
        live=True,
    )
    on_error = key(
        choice("close", "pass"),
        "close",
        "what its exceptions do to a flow: end it (reason element_failed), or let it go on without this element",
        live=True,
    )
    budget = key(
        duration("1ms", "1h"),
        "5ms",
        "how long a call may take; what takes longer is counted, and delays the worker's other flows",
        live=True,
    )
    max_held = key(size("1KiB", "1GiB"), "1MiB", "what HOLD may keep of one direction of a flow; more is an error", live=True)
    max_output = key(size("64KiB", "1GiB"), "4MiB", "what one call may answer with; more is an error", live=True)
    watch = key(boolean(), False, "load the code again when its files change, as a reload does", live=True)
    options = key(anything_by_name(), {}, "what the class makes of them is told where it is documented", live=True)


class Rules(Section):
    """[rules]: what the kernel is told. The relay itself uses the mark alone."""

    backend = key(
        choice("auto", "nft", "iptables", "iptables-legacy"),
        "auto",
        "the program that applies the rules; auto: nft where it works; iptables: its variant that holds rules already",
    )
    ipv6 = key(boolean(), True, "rules for IPv6 too; without them IPv6 connections are not captured")
    inbound_ports = key(
        all_or_port_ranges(),
        "all",
        "ports of this machine to which connections are captured; 22 is not, unless it is listed here",
    )
    inbound_exclude_ports = key(
        port_ranges(), [22], "ports of this machine to which none is; the relay's own ports need no entry"
    )
    inbound_exclude_cidrs = key(_networks(), [], "clients' networks from which none is")
    inbound_exclude_interfaces = key(_interfaces(), [], "interfaces by which none is")
    outbound_ports = key(all_or_port_ranges(), "all", "destination ports to which connections are captured")
    outbound_exclude_ports = key(port_ranges(), [], "destination ports to which none is")
    outbound_cidrs = key(
        all_or(_networks()), "all", "networks to which connections are captured; this machine's own addresses never are"
    )
    outbound_exclude_cidrs = key(_networks(), ["169.254.0.0/16", "fe80::/10"], "networks to which none is")
    outbound_exclude_interfaces = key(_interfaces(), [], "interfaces by which none is")
    outbound_uids = key(
        array(_id_kind("user", USER), "users, each a name or a number", most=64),
        [],
        "users whose connections are captured; empty: everyone but the relay",
    )
    outbound_uid_ports = key(
        by_name(USER, all_or_port_ranges(), "users", most=64),
        {},
        "for these users, the ports that are captured instead of outbound_ports",
    )
    outbound_exclude_uids = key(
        array(_id_kind("user", USER), "users, each a name or a number", most=64), [], "users of whom no connection is"
    )
    outbound_exclude_gids = key(
        array(_id_kind("group", GROUP), "groups, each a name or a number", most=64), [], "groups of which no connection is"
    )
    exempt_owner = key(
        boolean(), True, "exempt the relay's own user and group; false, where the app is the same user: the mark alone does it"
    )
    only_open_ports = key(
        boolean(), True, "capture no connection to a port that nobody listens on: it keeps answering with a reset"
    )
    on_failure = key(
        choice("auto", "reset", "drop", "open"),
        "auto",
        "what happens to connections while the relay is dead; auto: drop under iptables with tproxy, else reset",
    )
    notrack = key(
        boolean(),
        False,
        "leave clients' connections to tproxy listeners, inbound or gateway, out of conntrack; not with redirect or "
        "preserve_client",
    )
    gateway_interfaces = key(_interfaces(), [], "interfaces behind which a gateway's clients are; gateway rules need them")
    gateway_cidrs = key(_networks(), [], "the clients' networks that are captured there; empty: every client")
    mark = key(
        integer(0, MARK_MASK),
        0x539,
        "SO_MARK of the relay's own connections, by which the rules exempt them; 0, with redirect alone: none",
    )
    local_mark = key(integer(1, MARK_MASK), 0x111, "mark of packets that the rules of tproxy deliver on this machine")
    capture_mark = key(integer(1, MARK_MASK), 0x112, "mark of outbound packets that the rules of tproxy capture")
    client_mark = key(
        integer(1, MARK_MASK), 0x113, "mark of what the relay sends to captured clients, where notrack leaves them out"
    )
    route_table = key(
        integer(1, 2**32 - 1, taken=KERNEL_TABLES), 100, "routing table by which marked packets stay on this machine"
    )
    rule_priority = key(integer(1, 32765), 32764, "priority of the ip rules that lead there")


class Log(Section):
    """[log]: records on stdout."""

    level = key(
        choice("debug", "info", "warn", "error", aliases=[("warning", "warn")], any_case=True),
        "info",
        "the least level that is written (LOG_LEVEL)",
        live=True,
    )
    format = key(
        choice("auto", "text", "json", aliases=[("console", "text")], any_case=True),
        "auto",
        "how records look; auto: text on a terminal, JSON lines elsewhere; console is text (LOG_FORMAT)",
        live=True,
    )
    access = key(boolean(), True, "write a record for each finished flow", live=True)
    queue = key(
        integer(16, 1_000_000), 8192, "records that wait for a slow reader of stdout; more are dropped and counted", live=True
    )


class Admin(Section):
    """[admin]: how the relay is asked and told."""

    socket = key(_socket_path_kind(), "/run/relay-sidecar/admin.sock", "unix socket for stats, flows, reload, drain and wait")
    metrics = key(
        endpoint('"address:port", "[v6]:port", or "": off', names=False, lowest_port=0),
        "127.0.0.1:15020",
        "Prometheus metrics over HTTP",
    )
    health = key(
        endpoint('"address:port", "[v6]:port", or "": off', names=False, lowest_port=0),
        "[::]:15021",
        "health and readiness over HTTP",
    )


TABLES: Mapping[str, type[Section]] = {
    "relay": Relay,
    "listener": Listener,
    "element": Element,
    "rules": Rules,
    "log": Log,
    "admin": Admin,
}

DEFAULT_LISTENERS: tuple[Mapping[str, object], ...] = (
    {"name": "outbound", "direction": "outbound", "port": 15002},
    {"name": "inbound", "direction": "inbound", "port": 15006},
)
