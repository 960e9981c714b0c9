"""sidecar.config.load and checks: what a configuration says as a whole, and every message about it.

The messages stand in tests/golden/config, one .txt beside each .toml; UPDATE_GOLDEN=1 writes them anew, for review.
"""

import os
from pathlib import Path

import pytest

from sidecar.config import Flags, load_admin, load_config
from sidecar.config.network_kinds import Endpoint
from sidecar.errors import RelayError
from tests.unit.sidecar.conftest import Load, WriteConfig

GOLDEN = Path(__file__).parents[2] / "golden" / "config"


def told(file: Path) -> str:
    """Everything that is said of a file, problems and warnings."""
    try:
        config = load_config(Flags(config=file.name), {})
    except RelayError as error:
        assert error.exit_status == 78
        return f"{error}\n"
    return "".join(f"warning: {problem}\n" for problem in config.warnings)


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.toml")), ids=lambda file: file.stem)
def test_messages_are_as_reviewed(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake would be told less well than it was, or not at all."""
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / file.name
    copy.write_text(file.read_text())
    copy.chmod(0o644)
    if os.environ.get("UPDATE_GOLDEN"):
        file.with_suffix(".txt").write_text(told(copy))
    assert told(copy) == file.with_suffix(".txt").read_text()


def problems(load: Load, text: str, environ: dict[str, str] | None = None, **flags: object) -> tuple[list[str], int]:
    """The lines without the file's name, and the exit status."""
    with pytest.raises(RelayError) as caught:
        load(text, environ, **flags)
    lines = [line.rpartition("relay.toml: ")[2] for line in str(caught.value).splitlines()]
    return lines, caught.value.exit_status


def test_no_file_means_the_two_listeners_of_the_contract() -> None:
    """`relay-sidecar` without a file would not listen on 15002 and 15006."""
    config = load_config(Flags(), {})
    assert [(listener.name, listener.direction, listener.port, listener.capture) for listener in config.listeners] == [
        ("outbound", "outbound", 15002, "redirect"),
        ("inbound", "inbound", 15006, "redirect"),
    ]
    assert config.file == ""


def test_the_file_is_named_by_flag_else_environment(write_config: WriteConfig) -> None:
    """RELAY_CONFIG would be ignored, or would win over --config."""
    path = write_config('[log]\nlevel = "error"\n')
    assert load_config(Flags(), {"RELAY_CONFIG": path}).log.level == "error"
    assert load_config(Flags(config=path), {"RELAY_CONFIG": "/nowhere"}).log.level == "error"


def test_flag_beats_environment_beats_file_beats_default(load: Load) -> None:
    """A pod's environment could not change what the image's file says."""
    text = '[log]\nlevel = "error"\n'
    assert load("").log.level == "info"
    assert load(text).log.level == "error"
    assert load(text, {"LOG_LEVEL": "WARNING"}).log.level == "warn"
    assert load(text, {"LOG_LEVEL": "warn"}, log_level="debug").log.level == "debug"
    assert load(text, {"LOG_LEVEL": ""}).log.level == "error"
    assert load("", {"LOG_FORMAT": "console"}).log.format == "text"


def test_a_wrong_value_is_told_at_its_place(load: Load) -> None:
    """A wrong LOG_LEVEL would be looked for in the file."""
    found = 'expected "debug", "info", "warn" or "error", found "loud"'
    assert problems(load, "", {"LOG_LEVEL": "loud"}) == ([f"environment: LOG_LEVEL: {found}"], 78)
    assert problems(load, "", log_level="loud") == ([f"--log-level: {found}"], 2)
    lines, status = problems(load, "[log]\nlevel = 'loud'\n", log_level="loud")
    assert lines == [f"log.level: {found} (line 2)", f"--log-level: {found}"]
    assert status == 78


def test_ports_replace_the_listeners(load: Load) -> None:
    """The seeds' --ports would not work beside a file."""
    text = '[[listener]]\nname = "x"\ndirection = "gateway"\nport = 1\n'
    config = load(text, ports=(1000, 2000))
    assert [(listener.name, listener.direction, listener.port) for listener in config.listeners] == [
        ("outbound", "outbound", 1000),
        ("inbound", "inbound", 2000),
    ]
    (alone,) = load(text, ports=(1000,)).listeners
    assert (alone.direction, alone.port, alone.capture) == ("outbound", 1000, "redirect")


def test_a_port_that_a_flag_made_clash_is_the_flags_fault(load: Load) -> None:
    """The file would be blamed for what the command line says."""
    lines, status = problems(load, "", ports=(15020,))
    assert lines == ["admin.metrics: expected a port of its own, found 15020, as listener[0].port has"]
    assert status == 78
    lines, status = problems(load, "", ports=(7, 7))
    assert (lines, status) == (["--ports: expected a port of its own, found 7, as listener[0].port has"], 2)
    lines, status = problems(load, "", ports=(0,))
    assert lines == [
        '--ports: expected a port from 1 to 65535, found 0; a rule must know the port; 0 works with capture = "none"'
    ]


def test_a_target_makes_default_listeners_use_it(load: Load) -> None:
    """`TARGET_ADDR=localhost:8080 relay-sidecar` would wait for captured connections, as no other proxy of its kind does."""
    environ = {"TARGET_ADDR": "localhost:8080"}
    config = load("", environ)
    assert [listener.capture for listener in config.listeners] == ["none", "none"]
    assert config.relay.target == Endpoint("localhost", 8080)
    assert [listener.capture for listener in load("", environ, ports=(0,)).listeners] == ["none"]


def test_a_target_does_not_change_configured_listeners(load: Load) -> None:
    """A fixed target would hide that captured connections cannot be looked up."""
    text = '[[listener]]\nname = "x"\ndirection = "inbound"\nport = 1\n'
    config = load(text, {"TARGET_ADDR": "a:1"})
    assert [listener.capture for listener in config.listeners] == ["redirect"]
    (warning,) = config.warnings
    assert str(warning) == (
        'environment: TARGET_ADDR: expected a listener with capture = "none" that uses it, found captured listeners only; '
        "it has no effect"
    )


def test_addresses_may_share_a_port_where_the_kernel_lets_them(load: Load) -> None:
    """Two listeners on two addresses would be refused, or two on one address would fail only when bound."""
    listener = '[[listener]]\nname = "{}"\ndirection = "inbound"\nport = 1\naddress = "{}"\n'
    for one, other in (("127.0.0.1", "127.0.0.2"), ("127.0.0.1", "::1"), ("0.0.0.0", "::1")):
        assert len(load(listener.format("a", one) + listener.format("b", other)).listeners) == 2
    for one, other in (("127.0.0.1", "0.0.0.0"), ("127.0.0.1", "::"), ("::1", ""), ("::1", "0:0::1")):
        lines, _ = problems(load, listener.format("a", one) + listener.format("b", other))
        assert lines == ["listener[1].port: expected a port of its own, found 1, as listener[0].port has (line 9)"]


def test_an_interface_needs_a_listener_that_it_can_bind(load: Load) -> None:
    """--interface would silently do nothing for outbound listeners."""
    assert load("", interface="eth0").interface == "eth0"
    lines, status = problems(load, "", interface="eth0", ports=(1,))
    assert lines[0].startswith("--interface: expected an inbound or gateway listener to bind, found outbound ones only")
    assert status == 2


def test_too_many_listeners_are_refused(load: Load) -> None:
    """The engine would be asked for more than its table holds."""
    listener = '[[listener]]\nname = "l{0}"\ndirection = "inbound"\nport = {0}\n'
    text = "".join(listener.format(number) for number in range(1, 66))
    lines, _ = problems(load, text)
    assert lines == ["listener: expected at most 64 listeners, found 65 (line 1)"]


def test_the_socket_is_found_in_a_file_that_is_wrong_elsewhere(write_config: WriteConfig) -> None:
    """A running relay could not be asked while its file is being edited."""
    path = write_config('[admin]\nsocket = "/x"\n[relay]\nworkers = -1\n')
    assert load_admin(Flags(config=path), {}).socket == "/x"
    path = write_config('[admin]\nsocket = "x"\n')
    with pytest.raises(RelayError):
        load_admin(Flags(config=path), {})


def test_the_place_of_a_key_can_be_named_later(load: Load) -> None:
    """What is only found out at the start, such as a host that cannot be resolved, would be looked for in the file."""
    config = load("", {"TARGET_ADDR": "a:1"})
    assert config.where("relay.target") == "environment: TARGET_ADDR"
    assert config.where("relay.user").endswith("relay.toml: relay.user")
    assert load_config(Flags(), {}).where("relay.user") == "defaults: relay.user"


def test_it_is_known_which_keys_were_set(load: Load) -> None:
    """A user that was asked for would be taken for a default, and the relay would run as somebody else."""
    config = load('[relay]\nuser = "1337"\n[log]\n', {"TARGET_ADDR": "a:1"}, log_level="info")
    assert config.relay.given == {"user", "target"}
    assert config.log.given == {"level"}
    assert config.admin.given == frozenset()


def test_a_configuration_does_not_change(load: Load) -> None:
    """A worker and the main thread could see two configurations."""
    with pytest.raises(AttributeError):
        load("").relay.workers = 3
