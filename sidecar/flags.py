"""The parts of every command line: the parser, and the options that several commands have.

Owns: how help looks, that every option shows its default, and the exit statuses as help tells them.
Never here: which commands there are (cli, rules_commands); work.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple, NoReturn, TypeVar

from sidecar import __version__, commands
from sidecar.config.kinds import Kind, Misfit
from sidecar.config.network_kinds import HIGHEST_PORT
from sidecar.errors import USAGE

T = TypeVar("T")
Arguments = argparse.Namespace

HELP_WIDTH = 100

EXIT_STATUS = """\
exit status:
  0   fine, also when the drain deadline cut flows
  1   failed: cannot bind, no relay answers, a program is missing, rules differ, a second signal
  2   wrong usage
  3   rules plan --exit-code: something would change
  77  a privilege is missing
  78  the configuration or an environment value is invalid, or asks for what the kernel cannot do
  126 the rules do not do what they say
  130 interrupted by Ctrl-C; demo: 128 and the number of the signal
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


def config_option(parser: Parser, meaning: str = "the TOML file") -> None:
    default = "none: every key has its default"
    option(parser, "--config", meaning, default=default, variable="RELAY_CONFIG", metavar="FILE")


def json_option(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text (default: text)")


def ports_option(parser: Parser) -> None:
    option(
        parser,
        "--ports",
        "listen on these ports instead of the configured listeners: the first is outbound, the second inbound",
        default="the configured listeners, else 15002,15006",
        type=ports,
        metavar="A[,B]",
    )


class Command(NamedTuple):
    """One command: what it does in a line, what that means for the user, its flags and its code."""

    summary: str
    description: str
    options: Callable[[Parser], None]
    run: Callable[[Arguments], int]
