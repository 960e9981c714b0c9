"""A machine for pods inside this one: podman with mounts, processes, a /run and a network of its own.

Owns: one `unshare`, whose death, like that of whoever runs the tests, is the death of everything inside; what podman keeps on
disk, and its control groups. The image, and whence its build has its packages.
Never: a rule, an address or a process of the machine itself. The build alone is outside of the private network: it needs the
machine's way to its package servers, for which podman's --network=host lets netavark do nothing.
"""

import configparser
import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.manifests import DEPLOY
from tests.support.netns import Namespace

PACKAGES = Path(__file__).with_name("debian-packages-long.txt")
IMAGE = "localhost/relay-sidecar:test"
BUILD_SECONDS, SECONDS = 600, 60

# $1: a directory. crun refuses a hybrid of both kinds of control groups. A resolver file that is a link into /run stays
# readable. Nobody has to wait for what becomes a child of the last program: SIGCHLD is ignored. It ends with its stdin.
INIT = """
resolver=$(readlink -f /etc/resolv.conf)
cp "$resolver" "$1/resolv.conf"
mount -t tmpfs tmpfs /run
[ -e "$resolver" ] || { mkdir -p "$(dirname "$resolver")"; cp "$1/resolv.conf" "$resolver"; }
umount /sys/fs/cgroup/unified 2>/dev/null || true
echo ready
trap '' CHLD
exec cat
"""

CONTAINERS = """
[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile={files}:{files}", "nproc=16384:16384"]
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_config_dir = "{directory}/networks"
"""

STORAGE = """
[storage]
driver = "overlay"
graphroot = "{directory}/storage"
runroot = "/run/storage"
"""


class Podman:
    """The programs and the network of that machine; 10.89.0.1 in it is where the pods' traffic comes from and goes to."""

    def __init__(self, directory: Path) -> None:
        for program in ("podman", "crun", "mmdebstrap", "catatonit", "nsenter"):
            if shutil.which(program) is None:
                pytest.fail(f"{program} is missing: apt-get install $(grep -v '^#' {PACKAGES})", pytrace=False)
        self.directory = directory
        self.place = Namespace("pods")
        (directory / "networks").mkdir(parents=True)
        hard = os.sysconf("SC_OPEN_MAX")
        for name, text in (("containers.conf", CONTAINERS), ("storage.conf", STORAGE)):
            (directory / name).write_text(text.format(directory=directory, files=hard))
        self._environment = {
            **os.environ,
            "CONTAINERS_CONF": str(directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
        }
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._keeper = self.place.popen(
            [*unshare, "sh", "-ec", INIT, "init", str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._keeper.stdout
        assert self._keeper.stdout.readline() == b"ready\n"

    def close(self) -> None:
        """Everything inside ends with its first process; what is on disk is removed."""
        self._keeper.kill()
        self._keeper.communicate()
        self.place.close()
        shutil.rmtree(self.directory)
        for parent in Path("/sys/fs/cgroup").glob("**/libpod_parent"):
            for group in sorted(filter(Path.is_dir, [parent, *parent.rglob("*")]), reverse=True):
                with contextlib.suppress(OSError):  # busy: somebody else's
                    group.rmdir()

    def popen(self, argv: Sequence[str], *, place: Namespace | None = None, **options: object) -> "subprocess.Popen[str]":
        """Start a program inside, on the private network, or, without a place, on the machine's."""
        spaces = f"/proc/{self._keeper.pid}/ns"
        command = ["nsenter", f"--mount={spaces}/mnt", f"--pid={spaces}/pid_for_children", *argv]
        with place.entered() if place else contextlib.nullcontext():
            return subprocess.Popen(
                command, text=True, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
            )  # type: ignore[call-overload]

    def run(self, *argv: str, private: bool = True, seconds: float = SECONDS, check: bool = True) -> str:
        """Run a program inside to its end; what it printed."""
        done = self.finished(argv, private=private, seconds=seconds)
        assert not check or done.returncode == 0, f"{' '.join(argv)}: {done.stderr[-4000:]}"
        return done.stdout

    def finished(
        self, argv: Sequence[str], *, private: bool = True, seconds: float = SECONDS
    ) -> "subprocess.CompletedProcess[str]":
        """The same, however it ended."""
        process = self.popen(argv, place=self.place if private else None)
        try:
            out, err = process.communicate(timeout=seconds)
        finally:
            process.kill()
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def build(self, archive: Path) -> None:
        """deploy/Containerfile on a base of the machine's own Debian, under the name of the real one."""
        text = (DEPLOY / "Containerfile").read_text()
        (base,) = re.findall(r"^ARG BASE=(.*)$", text, re.M)
        root = self.directory / "base.tar"
        _debian(root)
        self.run("podman", "import", str(root), base, private=False)
        volumes = [f"--volume={source}:{target}:ro" for source, target in _pip_access(self.directory)]
        self.run(
            *("podman", "build", "--pull=never", "--network=host", *volumes),
            *("-f", str(DEPLOY / "Containerfile"), "-t", IMAGE, str(DEPLOY.parent)),
            private=False,
            seconds=BUILD_SECONDS,
        )
        self.run("podman", "save", "--quiet", "--output", str(archive), IMAGE, private=False)

    def load(self, archive: Path) -> None:
        """What another one has built."""
        self.run("podman", "load", "--quiet", "--input", str(archive), private=False)


@contextmanager
def machine(directory: Path) -> Iterator[Podman]:
    """A Podman that is gone at the end, however that comes."""
    podman = Podman(directory)
    try:
        yield podman
    finally:
        podman.close()


def _debian(target: Path) -> None:
    """A root file system with apt in it, as Debian's images are, from the servers that this machine's apt uses."""
    fields = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", fields, "Identifier: Packages", "Origin: Debian"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    command = ["mmdebstrap", "--quiet", "--variant=apt", release["VERSION_CODENAME"], str(target), *(["-"] if listed else [])]
    done = subprocess.run(command, input=listed, text=True, capture_output=True, timeout=BUILD_SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def _pip_access(directory: Path) -> list[tuple[Path, str]]:
    """Files of this machine, and where pip finds them in the build: an index and certificates that are not the usual ones."""
    settings: dict[str, str] = {}
    for path in (Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", Path.home() / ".config/pip/pip.conf"):
        parser = configparser.RawConfigParser()
        parser.read(path)
        settings |= dict(parser.items("global")) if parser.has_section("global") else {}
    for key in ("index-url", "trusted-host", "cert"):
        settings[key] = os.environ.get(f"PIP_{key.replace('-', '_').upper()}", settings.get(key, ""))
    access = []
    if settings["cert"]:
        access.append((Path(settings["cert"]), "/etc/ssl/machine.crt"))
    lines = [f"{key} = {settings[key]}" for key in ("index-url", "trusted-host") if settings[key]]
    lines += ["cert = /etc/ssl/machine.crt"] if access else []
    configuration = directory / "pip.conf"
    configuration.write_text("\n".join(["[global]", *lines, ""]))
    return [*access, (configuration, "/etc/pip.conf")]
