"""The load generator: `python -m benchmarks.load ROLE …`. It says JSON lines; the last holds the figures.

Owns: its command line, the sockets that it connects. The loops are compiled (_load, _serve).
Never here: a relay, a namespace, a rule. Whoever starts it says where.

A client warms up (`--warmup`), loads for its seconds, and then lets come in what is outstanding (`--grace`). Figures are of the
seconds alone; latencies also hold what was due in them and answered late, and what was never answered, with its age. Errors are
of the whole run. With `--marks` it says {"measuring": true} and {"ended": true} around the seconds, for who measures a relay
meanwhile. `cpu_s` is what the generator itself used in them.
"""

import argparse
import errno
import json
import resource
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from benchmarks.workloads import ECHO_PORT, SINK_PORT, SOURCE_PORT

try:
    from benchmarks._client import Client
    from benchmarks._load import Bulk, Churn, Exchange
    from benchmarks._serve import Server
except ImportError as missing:
    raise SystemExit(f"benchmarks.load: expected its compiled loops, found none ({missing}); run: make build") from missing

_BACKLOG = 8192
_CONNECT_SECONDS = 5.0
_ASK = b"x" * 64
_CHUNK = 1 << 20
_FRACTIONS = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p999_us": 0.999}


def say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def descriptors() -> int:
    """As many as there may be; how many that is."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return limit


def listener(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind((host, port))
    sock.listen(_BACKLOG)
    sock.setblocking(False)
    return sock


def serve(options: argparse.Namespace) -> None:
    """Echo, sink and source until stdin ends."""
    listeners = [listener(options.host, port) for port in options.ports]
    server = Server(*(sock.fileno() for sock in listeners), sys.stdin.fileno(), options.descriptors, options.copy)
    say(ready=True, ports=[sock.getsockname()[1] for sock in listeners])
    server.run()
    say(**server.totals(), cpu_s=time.process_time())


def connected(options: argparse.Namespace, errors: Counter[str]) -> list[socket.socket]:
    """As many connections as were asked for, without those that failed."""
    found = []
    for _ in range(options.connections):
        try:
            sock = socket.create_connection((options.to, options.port), _CONNECT_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            errors[named(error)] += 1
            continue
        found.append(sock)
    return found


def named(error: OSError) -> str:
    """Python's own time-out has no errno."""
    return errno.errorcode.get(error.errno or errno.ETIMEDOUT, str(error.errno))


def borrowed(sockets: list[socket.socket]) -> list[int]:
    """Their descriptors, for the loops."""
    for sock in sockets:
        sock.setblocking(False)
    return [sock.fileno() for sock in sockets]


def measured(client: Client, options: argparse.Namespace, counted: Callable[[], int]) -> dict[str, Any]:
    """What was counted between warming up and the end, in how many seconds, and what it cost this end."""
    client.run(options.warmup)
    client.begin()
    if options.marks:
        say(measuring=True)
    cpu, before = time.process_time(), counted()
    seconds = client.run(options.seconds)
    count, cpu = counted() - before, time.process_time() - cpu
    if options.marks:
        say(ended=True)
    return {"count": count, "seconds": seconds, "cpu_s": cpu}


def answered(client: Client, options: argparse.Namespace, name: str, errors: Counter[str]) -> None:
    """Load with something that answers, and say the figures."""
    found = measured(client, options, lambda: client.done)
    client.drain(options.grace)
    found[name] = found.pop("count")
    latencies = {key: client.at_us(fraction) for key, fraction in _FRACTIONS.items()}
    say(
        **found,
        **latencies,
        max_us=client.greatest_us(),
        late=client.late,
        unanswered=client.unanswered,
        errors=errors + Counter(client.errors()),
    )


def pingpong(options: argparse.Namespace) -> None:
    errors: Counter[str] = Counter()
    sockets = connected(options, errors)
    answered(Exchange(borrowed(sockets), options.bytes, options.rate), options, "requests", errors)


def churn(options: argparse.Namespace) -> None:
    client = Churn([-1] * options.connections, numeric(options.to), options.port, options.total)
    answered(client, options, "connections", Counter())


def numeric(host: str) -> str:
    return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])


def bulk(options: argparse.Namespace) -> None:
    """Up: what was acknowledged in the window. The sink's own count is of the whole run, and must be what was sent."""
    errors: Counter[str] = Counter()
    sockets = connected(options, errors)
    client = Bulk(borrowed(sockets), options.direction == "up", options.copy)
    found = measured(client, options, client.arrived)
    found["bytes"] = found.pop("count")
    if options.direction == "up":
        found["sent_bytes"] = client.moved()
        found["sink_bytes"] = sum(counts) if None not in (counts := [told(sock, options.grace) for sock in sockets]) else None
    say(**found, errors=errors + Counter(client.errors()))


def transfer(options: argparse.Namespace) -> None:
    """Connections one after the other, each of which carries exactly so many bytes: the sink says that they arrived."""
    errors: Counter[str] = Counter()
    chunk = memoryview(bytes(min(options.bytes, _CHUNK)))
    count, begun, cpu = 0, time.monotonic(), time.process_time()
    while not errors and (count < options.connections or time.monotonic() - begun < options.seconds):
        try:
            with socket.create_connection((options.to, options.port), _CONNECT_SECONDS) as sock:
                sock.settimeout(options.grace)
                for rest in range(options.bytes, 0, -len(chunk)):
                    sock.sendall(chunk[:rest])
                arrived = told(sock, options.grace)
        except OSError as error:
            errors[named(error)] += 1
            continue
        if arrived == options.bytes:
            count += 1
        else:
            errors["EOF"] += 1
    seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
    say(connections=count, bytes=count * options.bytes, seconds=seconds, cpu_s=cpu, errors=errors)


def told(sock: socket.socket, seconds: float) -> int | None:
    """What the sink says that it received; None of one that did not hear of the end, or whose answer did not come back."""
    sock.settimeout(seconds)
    try:
        sock.shutdown(socket.SHUT_WR)
        return int(b"".join(iter(lambda: sock.recv(64), b"")))
    except (OSError, ValueError):
        return None


def hold(options: argparse.Namespace) -> None:
    errors: Counter[str] = Counter()
    sockets = connected(options, errors)
    if options.ask:
        sockets = [sock for sock in sockets if echoed(sock, errors)]
    say(open=len(sockets), errors=errors)
    sys.stdin.read()


def echoed(sock: socket.socket, errors: Counter[str]) -> bool:
    """Whether the connection goes all the way: what relays it may accept before it has dialled."""
    try:
        sock.sendall(_ASK)
        if sock.recv(len(_ASK), socket.MSG_WAITALL) == _ASK:
            return True
        errors["EOF"] += 1
    except OSError as error:
        errors[named(error)] += 1
    return False


def at_least(kind: Callable[[str], float], least: float) -> Callable[[str], float]:
    """A number that makes sense."""

    def number(text: str) -> float:
        value = kind(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected at least {least}, found {text}")
        return value

    return number


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.load", description="Load for the benchmarks; JSON lines on stdout")
    roles = parser.add_subparsers(required=True, metavar="ROLE")

    server = roles.add_parser("serve", help="echo, sink and source on one host, until stdin ends")
    server.set_defaults(act=serve)
    server.add_argument("host")
    ports = (ECHO_PORT, SINK_PORT, SOURCE_PORT)
    server.add_argument("--ports", nargs=3, type=int, default=ports, metavar=("ECHO", "SINK", "SOURCE"), help="0: any")

    def client(
        name: str, act: Callable[[argparse.Namespace], None], what: str, *, lasts: bool = True
    ) -> argparse.ArgumentParser:
        role = roles.add_parser(name, help=what)
        role.set_defaults(act=act)
        role.add_argument("--to", required=True, metavar="HOST")
        role.add_argument("--port", type=int, help="default: the one of `serve` that fits")
        role.add_argument("--connections", type=at_least(int, 1), default=1, metavar="N")
        if lasts:
            role.add_argument("--seconds", type=at_least(float, 0), default=2.0)
            role.add_argument("--warmup", type=at_least(float, 0), default=0.0, metavar="SECONDS")
            role.add_argument("--grace", type=at_least(float, 0), default=5.0, metavar="SECONDS", help="for late answers")
            role.add_argument("--marks", action="store_true", help="say when the seconds begin and end")
        return role

    role = client("pingpong", pingpong, "so many bytes there, so many back")
    role.add_argument("--bytes", type=at_least(int, 1), default=64)
    role.add_argument("--rate", type=at_least(float, 0), default=0, help="requests a second over all; default: closed loop")
    role = client("churn", churn, "connect, 64 bytes there and back, close; --connections at a time")
    role.add_argument("--total", type=at_least(int, 1), default=100_000, help="connections, for the ports' sake")
    role = client("bulk", bulk, "as many bytes as go through")
    role.add_argument("--direction", choices=["up", "down"], required=True)
    for reader in (server, role):
        reader.add_argument("--copy", action="store_true", help="read bulk into memory; default: discard it in the kernel")
    role = client("transfer", transfer, "one connection after the other, so many bytes up each", lasts=False)
    role.set_defaults(direction="up")
    role.add_argument("--bytes", type=at_least(int, 1), default=1_000_000)
    role.add_argument("--seconds", type=at_least(float, 0), default=0, help="as many more as begin in them")
    role.add_argument("--grace", type=at_least(float, 0), default=5.0, metavar="SECONDS", help="for each answer")
    role = client("hold", hold, "open connections and hold them until stdin ends", lasts=False)
    role.add_argument("--ask", action="store_true", help="one echo on each before it counts as open")

    options = parser.parse_args(arguments)
    if options.act is not serve and options.port is None:
        options.port = {None: ECHO_PORT, "up": SINK_PORT, "down": SOURCE_PORT}[getattr(options, "direction", None)]
    return options


def main() -> None:
    options = parsed()
    options.descriptors = descriptors()
    # The loops do not look for Python's signals.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    options.act(options)


if __name__ == "__main__":
    main()
