"""The command line: which commands there are, their flags and help, and how an error becomes a line and an exit status.

Owns: the table of commands, and the last resort for every error.
Never here: work (commands). What only one command needs is imported when it is called.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from sidecar import commands
from sidecar.config.kinds import duration, parse_duration, parse_size, size
from sidecar.config.network_kinds import interface
from sidecar.config.schema import Admin, Log, Rules
from sidecar.errors import RelayError
from sidecar.flags import (
    EXIT_STATUS,
    Arguments,
    Command,
    Parser,
    Version,
    config_option,
    json_option,
    of_kind,
    option,
    ports_option,
)
from sidecar.report.flows import BEGINNING, EQUAL, MOST_ROWS, ORDERS, VALUES
from sidecar.rules_commands import rules_options, run_rules

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def rows(text: str) -> int:
    """How many rows; 0 is all."""
    if not text.isascii() or not text.isdigit() or int(text[:9]) > MOST_ROWS:
        raise argparse.ArgumentTypeError(f"expected a number up to {MOST_ROWS}, found {text!r}")
    return int(text)


def client_options(parser: Parser) -> None:
    config_option(parser, "the TOML file, read only to find admin.socket: the relay keeps the one it was started with")
    default = f"admin.socket of the configuration, {Admin.keys['socket'].default}"
    option(parser, "--socket", "the unix socket of the relay to ask", default=default, metavar="PATH")
    json_option(parser)


def run_options(parser: Parser) -> None:
    config_option(parser)
    ports_option(parser)
    option(
        parser,
        "--interface",
        "bind inbound and gateway listeners to this interface; outbound connections arrive on lo",
        default="all interfaces",
        type=of_kind(interface()),
        metavar="IF",
    )
    parser.add_argument(
        "--with-rules",
        action="store_true",
        help="apply the rules once the listeners are bound, repair them, and remove them at the end, also when killed; "
        "needs CAP_NET_ADMIN at start (default: rules are not touched)",
    )
    level, form = Log.keys["level"], Log.keys["format"]
    option(
        parser,
        "--log-level",
        f"write records of this level and above: {level.kind.expected}",
        default=f"log.level, {level.default}",
        variable="LOG_LEVEL",
        type=of_kind(level.kind),
        metavar="LEVEL",
    )
    option(
        parser,
        "--log-format",
        f"how records look: {form.kind.expected}; auto is text on a terminal and JSON lines elsewhere, console is text",
        default=f"log.format, {form.default}",
        variable="LOG_FORMAT",
        type=of_kind(form.kind),
        metavar="FORMAT",
    )


def check_options(parser: Parser) -> None:
    run_options(parser)
    json_option(parser)


def flows_options(parser: Parser) -> None:
    client_options(parser)
    option(parser, "--sort", "what is greatest first", default="age", choices=tuple(ORDERS))
    option(parser, "--limit", f"show at most so many; 0: {MOST_ROWS}", default="100", type=rows, metavar="N")
    for name in EQUAL:
        shape = {"choices": VALUES[name]} if name in VALUES else {"metavar": name.upper()}
        option(parser, f"--{name}", f"only flows with this {name}", default="all", **shape)
    for name in BEGINNING:
        option(parser, f"--{name}", f"only flows whose {name} address begins like this", default="all", metavar="ADDRESS")


def wait_options(parser: Parser) -> None:
    client_options(parser)
    option(
        parser,
        "--timeout",
        "give up, with exit status 1, after so long",
        default="30s",
        type=of_kind(duration("0s", "24h")),
        metavar="DURATION",
    )
    parser.set_defaults(timeout=parse_duration("30s"))


def demo_options(parser: Parser) -> None:
    backend = Rules.keys["backend"].kind
    option(parser, "--capture", "how connections are captured", default="redirect", choices=("redirect", "tproxy"))
    option(parser, "--backend", f"rules.backend of its relay: {backend.expected}", default="auto", type=of_kind(backend))
    option(parser, "--size", "how much the app downloads", default="1GiB", type=of_kind(size("1KiB", "64GiB")), metavar="SIZE")
    parser.set_defaults(capture="redirect", backend="auto", size=parse_size("1GiB"))
    parser.add_argument(
        "--keep", action="store_true", help="leave hosts, relay and rules for playing, in a background process (default: no)"
    )
    json_option(parser)


def demo(arguments: Arguments) -> int:
    from sidecar.demo.show import demo as show_demo

    return show_demo(arguments)


COMMANDS = {
    "run": Command(
        "relay in the foreground (the default command)",
        "Bind the listeners and relay until SIGTERM or SIGINT; then take no new connections, let flows\n"
        "finish for drain_timeout and exit 0. A second signal resets what is left and exits 1. SIGUSR1 drains\n"
        "too, but never counts as the second. SIGHUP reads the configuration again. SIGUSR2 and SIGALRM are\n"
        "ignored. Started as root, it becomes relay.user and keeps CAP_NET_RAW or CAP_NET_ADMIN alone, if\n"
        "anything. Without --with-rules somebody else applies the rules, such as `rules apply` in an init\n"
        "container; without rules nothing is captured.",
        run_options,
        commands.run,
    ),
    "check": Command(
        "validate the configuration",
        "Read file, environment and flags as run would, and tell every problem. Nothing is bound, resolved\nor changed.",
        check_options,
        commands.check,
    ),
    "rules": Command(
        "show, plan, apply and remove the rules that bring connections here",
        "The rules of iptables or nftables, and for tproxy the ip rules and routes, for a configuration.",
        rules_options,
        run_rules,
    ),
    "wait": Command(
        "wait until the relay takes connections",
        "Return as soon as the relay is ready: a start gate for whatever must not start before it.",
        wait_options,
        commands.wait,
    ),
    "stats": Command(
        "show counters",
        "Show what the relay has counted since its start. Flows are not disturbed.",
        client_options,
        commands.stats,
    ),
    "flows": Command(
        "list live flows",
        "List the flows that live now, one line each. Workers answer between two batches: no flow is held up.",
        flows_options,
        commands.flows,
    ),
    "reload": Command(
        "read the configuration again",
        "Apply log level, limits and time-outs of the changed file to the running relay, and tell which\n"
        "changed keys wait for a restart. An invalid file changes nothing.",
        client_options,
        commands.reload,
    ),
    "drain": Command(
        "end the relay gently",
        "Take no new connections, let flows finish for drain_timeout, then end, as after SIGTERM. This cannot\nbe undone.",
        client_options,
        commands.drain,
    ),
    "demo": Command(
        "show a relay at work, on three hosts made for it",
        "Make a client, an app with its relay, and a server, as network namespaces of this command's own;\n"
        "apply rules, send real connections both ways, and show what becomes of each. Needs root or a user\n"
        "namespace. Nothing outside is touched, and nothing is left: it takes a few seconds.",
        demo_options,
        demo,
    ),
}


def make_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="relay-sidecar",
        description="A transparent layer-4 relay: captured connections, relayed byte for byte.",
        epilog=f"`relay-sidecar --config relay.toml` is `relay-sidecar run --config relay.toml`.\n\n{EXIT_STATUS}",
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.summary, description=command.description, epilog=EXIT_STATUS)
        command.options(subparser)
    return parser


def parse(argv: Sequence[str]) -> Arguments:
    """The command and its flags; without a command it is run."""
    named = argv and (not argv[0].startswith("-") or argv[0] in ("-h", "--help", "--version"))
    return make_parser().parse_args(argv if named else ["run", *argv])


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    _open_standard_descriptors()
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        return COMMANDS[arguments.command].run(arguments)
    except RelayError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED


def _open_standard_descriptors() -> None:
    """Whoever started us may have closed some; the next socket must not become stdout."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
