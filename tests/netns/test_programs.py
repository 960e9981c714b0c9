"""Programs that know nothing of the relay, unchanged through it: what works without it works with it."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.clock import eventually
from tests.support.traffic import MIB, Stream, same
from tests.support.ways import NFT_WAYS
from tests.support.world import APP_PORT, Way, World, captured

pod_ways = pytest.mark.parametrize("way", [way for way in NFT_WAYS if way.direction != "gateway"], ids=str)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Readable for the users that daemons become; pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="programs-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextmanager
def serving(world: World, argv: Sequence[str]) -> Iterator[None]:
    """A server in the foreground at the origin's end, from the moment that it listens; no probe connects to it."""
    world.path.unlisten()

    def listens() -> bool:
        return bool(world.origins.run(["ss", "-Hltn", f"sport = :{APP_PORT}"]).stdout)

    process = world.origins.popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert eventually(listens), f"{argv[0]} does not listen"
        yield
        assert world.relay.counted().opened > 0, "nothing went through the relay"
    finally:
        process.terminate()
        process.communicate()


def client(world: World, argv: Sequence[str], stdin: bytes = b"") -> bytes:
    """A client program at the other end, run to its end; what it printed."""
    process = world.path.near.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(stdin, timeout=60)
    assert process.returncode == 0, f"{argv[0]}: {err.decode()}"
    return out


def host(world: World) -> str:
    return str(world.path.dial_to[0])


def bracketed(world: World) -> str:
    return f"[{host(world)}]" if world.way.family == 6 else host(world)


NGINX = """
daemon off; master_process off; pid {d}/pid; error_log stderr; events {{ }}
http {{
  access_log off; client_body_temp_path {d}/body; client_max_body_size 100m;
  proxy_temp_path {d}/proxy; fastcgi_temp_path {d}/fastcgi; uwsgi_temp_path {d}/uwsgi; scgi_temp_path {d}/scgi;
  server {{ listen {port}; listen [::]:{port}; root {d}; dav_methods PUT; }}
}}
"""


@pod_ways
def test_curl_and_nginx(way: Way, directory: Path) -> None:
    """Downloads, uploads and connections that are used again."""
    (directory / "nginx.conf").write_text(NGINX.format(d=directory, port=APP_PORT))
    content = Stream(7, 8 * MIB).bytes()
    (directory / "file").write_bytes(content)
    with captured(way) as world, serving(world, ["nginx", "-e", "stderr", "-c", str(directory / "nginx.conf")]):
        url = f"http://{bracketed(world)}:{APP_PORT}"
        same(client(world, ["curl", "-sSf", f"{url}/file", f"{url}/file"]), 2 * content)
        client(world, ["curl", "-sSf", "-T", "-", f"{url}/sent"], stdin=content)
        same((directory / "sent").read_bytes(), content)


@pod_ways
def test_redis_benchmark(way: Way) -> None:
    """Many small questions at once, in pipelines too."""
    with (
        captured(way) as world,
        serving(world, ["redis-server", "--port", str(APP_PORT), "--save", "", "--protected-mode", "no"]),
    ):
        argv = ["redis-benchmark", "-h", host(world), "-p", str(APP_PORT), "-n", "5000", "-c", "20", "-t", "set,get", "--csv"]
        for pipeline in ("1", "16"):
            lines = client(world, [*argv, "-P", pipeline]).decode().splitlines()
            assert [line.split(",")[0] for line in lines[1:]] == ['"SET"', '"GET"']


@pod_ways
@pytest.mark.parametrize("direction", [[], ["-R"], ["--bidir"]], ids=["up", "down", "both"])
def test_iperf3(way: Way, direction: list[str]) -> None:
    """Bulk in either direction and both, several connections at once."""
    with captured(way) as world, serving(world, ["iperf3", "-s", "-p", str(APP_PORT)]):
        argv = ["iperf3", "-c", host(world), "-p", str(APP_PORT), "-J", "-P", "4", "-n", "32M", *direction]
        report = json.loads(client(world, argv))
        assert "error" not in report, report["error"]
        assert report["end"]["sum_received"]["bytes"] > 0


@pod_ways
def test_openssl(way: Way, directory: Path) -> None:
    """TLS is end to end: the client verifies the server's own certificate through the relay."""
    key, certificate = directory / "key", directory / "certificate"
    subject = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=origin", "-days", "2"]
    done = subprocess.run(["openssl", "req", *subject, "-keyout", key, "-out", certificate], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    server = ["openssl", "s_server", "-accept", str(APP_PORT), "-key", str(key), "-cert", str(certificate), "-rev", "-quiet"]
    with captured(way) as world, serving(world, server):
        argv = ["openssl", "s_client", "-connect", f"{bracketed(world)}:{APP_PORT}", "-CAfile", str(certificate)]
        answer = client(world, [*argv, "-verify_return_error", "-no_ign_eof"], stdin=b"stressed\nQ\n")
        assert b"Verification: OK" in answer


SSHD = """
Port {port}
HostKey {d}/key
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
AuthorizedKeysFile {d}/key.pub
"""


@pod_ways
def test_ssh(way: Way, directory: Path) -> None:
    """The server speaks first, then both, then the client's end of input must arrive without ending the answer."""
    key = directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (directory / "sshd_config").write_text(SSHD.format(d=directory, port=APP_PORT))
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own directory, which its package makes at boot
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") or "sshd"
    content = Stream(8, 4 * MIB).bytes()
    with captured(way) as world, serving(world, [sshd, "-D", "-e", "-f", str(directory / "sshd_config")]):
        options = ["-i", str(key), "-p", str(APP_PORT), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        answer = client(world, ["ssh", *options, "-o", "BatchMode=yes", host(world), "sha256sum"], stdin=content)
        assert answer.split()[0].decode() == hashlib.sha256(content).hexdigest()
