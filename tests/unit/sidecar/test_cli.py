"""sidecar.cli and commands: flags, help, exit statuses."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from sidecar import __version__, commands
from sidecar.cli import COMMANDS, main, parse
from sidecar.config import Flags
from sidecar.rules_commands import RULES
from tests.unit.sidecar.conftest import WriteConfig


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RELAY_CONFIG", "LOG_LEVEL", "LOG_FORMAT", "TARGET_ADDR"):
        monkeypatch.delenv(name, raising=False)


def exits(argv: Sequence[str]) -> int:
    """The exit status, also where argparse exits."""
    try:
        return main(argv)
    except SystemExit as error:
        return int(error.code or 0)


@pytest.mark.parametrize(
    ("argv", "flags"),
    [
        ([], Flags()),
        (["--config", "f"], Flags(config="f")),
        (["run", "--ports", "15002,15006"], Flags(ports=(15002, 15006))),
        (["--ports", "7", "--interface", "eth0"], Flags(ports=(7,), interface="eth0")),
        (["--log-level", "WARNING", "--log-format", "console"], Flags(log_level="warn", log_format="text")),
    ],
)
def test_without_a_command_it_is_run(monkeypatch: pytest.MonkeyPatch, argv: list[str], flags: Flags) -> None:
    """`relay-sidecar --config relay.toml` would not relay."""
    assert parse(argv).command == "run"
    assert commands._flags(parse(argv)) == flags


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--ports", "1,2,3"], "relay-sidecar run: argument --ports: expected one or two ports up to 65535"),
        (["--ports", "70000"], "argument --ports: expected one or two ports"),
        (["--ports", ""], "argument --ports: expected one or two ports"),
        (["--interface", "a b"], "argument --interface: expected the name of a network interface, such as eth0, found "),
        (["--log-level", "loud"], 'argument --log-level: expected "debug", "info", "warn" or "error", found "loud"'),
        (["--log-lev", "info"], "unrecognized arguments: --log-lev info"),
        (["bogus"], "invalid choice: 'bogus'"),
        (["wait", "--timeout", "5"], 'expected a duration from "0s" to "24h", found "5"; give it a unit, as in "5s"; see '),
        (["flows", "--lane", "fast"], "argument --lane: invalid choice: 'fast' (choose from 'copy', 'splice'"),
        (["flows", "--phase", "x"], "argument --phase: invalid choice"),
        (["flows", "--direction", "x"], "argument --direction: invalid choice"),
        (["flows", "--limit", "-1"], "argument --limit: expected"),
        (["flows", "--sort", "colour"], "argument --sort: invalid choice"),
        (["stats", "--ports", "1"], "unrecognized arguments: --ports 1"),
    ],
)
def test_wrong_usage_is_one_line_and_2(capsys: pytest.CaptureFixture[str], argv: list[str], told: str) -> None:
    """A script would not notice its mistake, or a user would search it in a page of usage."""
    assert exits(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert line.endswith("--help")


EVERY_COMMAND = {
    **{name: command for name, command in COMMANDS.items() if name != "rules"},
    **{f"rules {name}": command for name, command in RULES.items()},
}


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_help_tells_defaults_and_exit_statuses(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """A user would have to read the source to learn what happens without a flag."""
    assert exits([*command.split(), "--help"]) == 0
    out = capsys.readouterr().out
    options = out.partition("options:")[2].partition("exit status:")[0].split("\n  -")[2:]
    assert options
    assert all("(default: " in " ".join(option.split()) for option in options), options
    assert EVERY_COMMAND[command].description.split(".")[0].split("\n")[0] in out
    assert "78  the configuration" in out
    assert max(map(len, out.splitlines())) <= 100


def test_help_of_rules_names_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """A user would not know what there is."""
    assert exits(["rules", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"    {name} " in out for name in RULES)


def test_help_names_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    """LOG_LEVEL and the others would be a secret."""
    exits(["run", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    for name in ("RELAY_CONFIG", "LOG_LEVEL", "LOG_FORMAT"):
        assert f"environment: {name})" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """A bug report could not say which version it is about."""
    assert exits(["--version"]) == 0
    assert capsys.readouterr().out == f"relay-sidecar {__version__}\n"


def test_check_says_what_holds(capsys: pytest.CaptureFixture[str], write_config: WriteConfig) -> None:
    """A user could not see what a configuration comes to."""
    path = write_config('[relay]\nidle_timeout = "90m"\n')
    assert main(["check", "--config", path]) == 0
    assert capsys.readouterr().out == f"{path}: valid: outbound 15002 redirect, inbound 15006 redirect\n"
    assert main(["check", "--config", path, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["valid"] is True
    assert facts["configuration"]["relay"]["idle_timeout"] == "1h30m"
    assert facts["configuration"]["listener"][1]["port"] == 15006


def test_check_tells_every_problem(capsys: pytest.CaptureFixture[str], write_config: WriteConfig) -> None:
    """A script that reads JSON would not learn why a configuration is refused."""
    path = write_config("[relay]\nworkers = -1\nbogus = 1\n")
    assert main(["check", "--config", path, "--json"]) == 78
    out, err = capsys.readouterr()
    problems = json.loads(out)["problems"]
    assert [problem["where"] for problem in problems] == [f"{path}: relay.bogus", f"{path}: relay.workers"]
    assert len(err.splitlines()) == 2


def test_check_tells_warnings_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, write_config: WriteConfig
) -> None:
    """A target without effect would go unnoticed."""
    monkeypatch.setenv("TARGET_ADDR", "a:1")
    assert main(["check", "--ports", "7"]) == 0
    assert capsys.readouterr() == ("defaults: valid: outbound 7 none\n", "")
    path = write_config('[[listener]]\nname = "in"\ndirection = "inbound"\nport = 1\n')
    assert main(["check", "--config", path]) == 0
    out, err = capsys.readouterr()
    assert out == f"{path}: valid: in 1 redirect\n"
    assert err.startswith("warning: environment: TARGET_ADDR: expected a listener")


@pytest.mark.parametrize(
    ("text", "argv", "told"),
    [
        ("", ["--interface", "nowhere0"], "--interface: expected one of lo"),
        ('relay.target = "127.0.0.1:15006"\n', [], "relay.target: expected another place than this relay"),
        ('relay.target = "[::ffff:127.0.0.1]:15006"\n', [], "relay.target: expected another place than this relay"),
    ],
)
def test_check_refuses_what_run_would(
    capsys: pytest.CaptureFixture[str], write_config: WriteConfig, text: str, argv: list[str], told: str
) -> None:
    """A configuration would pass the gate and fail in production."""
    assert main(["check", "--config", write_config(text), *argv]) == 78
    assert told in capsys.readouterr().err


def test_check_resolves_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build machine without the cluster's names could not check a configuration."""
    monkeypatch.setenv("TARGET_ADDR", "no-such-name.invalid:1")
    assert main(["check"]) == 0


@pytest.mark.parametrize("command", ["stats", "flows", "reload", "drain"])
def test_a_relay_that_does_not_run_is_told(capsys: pytest.CaptureFixture[str], command: str, write_config: WriteConfig) -> None:
    """A user would read a traceback."""
    path = write_config('[admin]\nsocket = "/nowhere/admin.sock"\n')
    for argv in ([command, "--socket", "/nowhere/admin.sock"], [command, "--config", path]):
        assert main(argv) == 1
        assert capsys.readouterr().err.startswith("/nowhere/admin.sock: expected a relay that answers, found No such file")
    path = write_config('[admin]\nsocket = ""\n')
    assert main([command, "--config", path]) == 1
    assert "the relay does not listen" in capsys.readouterr().err


def test_wait_asks_until_the_relay_is_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An app behind a start gate would begin before the relay takes connections."""
    path = str(tmp_path / "admin.sock")

    def serve() -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()
            for state in ("draining", "ready"):
                client, _ = server.accept()
                with client:
                    client.recv(1000)
                    client.sendall(json.dumps({"ok": True, "result": {"state": state, "pid": 7}}).encode() + b"\n")

    thread = threading.Timer(0.02, serve)
    thread.start()
    assert main(["wait", "--socket", path]) == 0
    thread.join()
    assert capsys.readouterr().out == "ready: pid 7\n"


def test_wait_gives_up_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    """A start gate would hang for ever."""
    assert main(["wait", "--socket", "/nowhere/s", "--timeout", "10ms"]) == 1
    assert capsys.readouterr().err == (
        "/nowhere/s: expected a relay that is ready within 10ms, found No such file or directory; "
        "see what it said at its start; --socket names another relay\n"
    )


def run(*argv: str, stdout: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "sidecar", *argv], stderr=subprocess.PIPE, stdout=stdout, check=False)


@pytest.mark.parametrize("argv", [["check"], ["--help"], ["run", "--help"], ["--version"]], ids=" ".join)
def test_an_answer_that_cannot_be_written_is_an_error(argv: list[str]) -> None:
    """`relay-sidecar check > full-disk` would succeed, or print a traceback."""
    with open("/dev/full", "w") as full:
        done = run(*argv, stdout=full.fileno())
    assert (done.returncode, done.stderr) == (1, b"stdout: expected to take the answer, found No space left on device\n")


def test_a_reader_that_left_is_no_error_message() -> None:
    """`relay-sidecar flows | head` would print a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    done = run("check", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_closed_standard_descriptors_are_survived() -> None:
    """A socket would become stdout, and log lines would go to a client."""
    script = f"exec {sys.executable} -m sidecar check <&- >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", script], check=False).returncode == 0


def test_client_commands_do_not_load_the_engine() -> None:
    """A readiness gate that runs every second would cost twice the time."""
    heavy = ("relaycore", "asyncio", "http", "logging", "setproctitle", "difflib")
    source = (
        f"import sys; from sidecar.cli import main; main(['check']); print([name for name in {heavy} if name in sys.modules])"
    )
    # -S: without an editable install's import hook, which brings modules of its own; the tree and tomli come by the path.
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {source}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
