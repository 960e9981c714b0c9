"""The command line: which commands there are, their flags and help, and how an error becomes a line and an exit status.

Owns: the parser, and the last resort for every error.
Never here: work (commands). What only one command needs is imported when it is called.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn, TypeVar

from sidecar import __version__, commands
from sidecar.config.kinds import Kind, Misfit, duration, parse_duration
from sidecar.config.network_kinds import HIGHEST_PORT, interface
from sidecar.config.schema import Admin, Log
from sidecar.errors import USAGE, RelayError
from sidecar.report.flows import BEGINNING, EQUAL, MOST_ROWS, ORDERS, VALUES

T = TypeVar("T")
Arguments = argparse.Namespace

INTERRUPTED = 130  # 128 + SIGINT, as shells have it

HELP_WIDTH = 100

EXIT_STATUS = """\
exit status:
  0   fine, also when the drain deadline cut flows
  1   failed: cannot bind, no relay answers, a second signal
  2   wrong usage
  77  a privilege is missing
  78  the configuration or an environment value is invalid
"""


class Help(argparse.RawDescriptionHelpFormatter):
    """As wide as the descriptions are written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=HELP_WIDTH)


class Parser(argparse.ArgumentParser):
    """Errors are one line; nothing is abbreviated, so that a new flag breaks no script."""

    def __init__(self, **settings: object) -> None:
        super().__init__(allow_abbrev=False, formatter_class=Help, **settings)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")

    def print_help(self, file: object = None) -> None:
        """On stdout, where a full disk is an error as it is for any answer."""
        commands.say(self.format_help().rstrip())


class Version(argparse.Action):
    """Prints the version, with the same care as help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        commands.say(f"relay-sidecar {__version__}")
        parser.exit()


def option(parser: Parser, flag: str, meaning: str, *, default: str, variable: str = "", **settings: object) -> None:
    """A flag whose help always shows its default, and the environment variable that it overrides."""
    also = f"; environment: {variable}" if variable else ""
    parser.add_argument(flag, help=f"{meaning} (default: {default}{also})".replace("%", "%%"), **settings)  # type: ignore[arg-type]


def of_kind(kind: Kind[T]) -> Callable[[str], T]:
    """An argparse type that takes what a configuration key takes, with the same message."""

    def take(text: str) -> T:
        try:
            return kind.take(text)
        except Misfit as misfit:
            step = f"; {misfit.next_step}" if misfit.next_step else ""
            told = f"expected {misfit.expected or kind.expected}, found {misfit.found}{step}"
            raise argparse.ArgumentTypeError(told) from None

    return take


def ports(text: str) -> tuple[int, ...]:
    """ "15002" or "15002,15006"."""
    parts = text.split(",")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part[:6]) <= HIGHEST_PORT for part in parts):
        raise argparse.ArgumentTypeError(f"expected one or two ports up to {HIGHEST_PORT}, as in 15002,15006, found {text!r}")
    return tuple(map(int, parts))


def rows(text: str) -> int:
    """How many rows; 0 is all."""
    if not text.isascii() or not text.isdigit() or int(text[:9]) > MOST_ROWS:
        raise argparse.ArgumentTypeError(f"expected a number up to {MOST_ROWS}, found {text!r}")
    return int(text)


def config_option(parser: Parser, meaning: str = "the TOML file") -> None:
    default = "none: every key has its default"
    option(parser, "--config", meaning, default=default, variable="RELAY_CONFIG", metavar="FILE")


def json_option(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text (default: text)")


def client_options(parser: Parser) -> None:
    config_option(parser, "the TOML file, read only to find admin.socket: the relay keeps the one it was started with")
    default = f"admin.socket of the configuration, {Admin.keys['socket'].default}"
    option(parser, "--socket", "the unix socket of the relay to ask", default=default, metavar="PATH")
    json_option(parser)


def run_options(parser: Parser) -> None:
    config_option(parser)
    option(
        parser,
        "--ports",
        "listen on these ports instead of the configured listeners: the first is outbound, the second inbound",
        default="the configured listeners, else 15002,15006",
        type=ports,
        metavar="A[,B]",
    )
    option(
        parser,
        "--interface",
        "bind inbound and gateway listeners to this interface; outbound connections arrive on lo",
        default="all interfaces",
        type=of_kind(interface()),
        metavar="IF",
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


class Command(NamedTuple):
    """One command: what it does in a line, what that means for the user, its flags and its code."""

    summary: str
    description: str
    options: Callable[[Parser], None]
    run: Callable[[Arguments], int]


COMMANDS = {
    "run": Command(
        "relay in the foreground (the default command)",
        "Bind the listeners and relay until SIGTERM or SIGINT; then take no new connections, let flows\n"
        "finish for drain_timeout and exit 0. A second signal resets what is left and exits 1. SIGUSR1 drains\n"
        "too, but never counts as the second. SIGHUP reads the configuration again. SIGUSR2 and SIGALRM are\n"
        "ignored. Started as root, it becomes relay.user and keeps CAP_NET_RAW or CAP_NET_ADMIN alone, if\n"
        "anything. Rules are not touched: without them nothing is captured.",
        run_options,
        commands.run,
    ),
    "check": Command(
        "validate the configuration",
        "Read file, environment and flags as run would, and tell every problem. Nothing is bound, resolved\nor changed.",
        check_options,
        commands.check,
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
