"""A machine to install things on: this one's files under an overlay, a real systemd, and a network of the tests.

Owns: its processes, which all end with its process 1, and its control group. machine.sh makes it; nothing of it is on disk.
Never here: a change of the machine that the tests run on; what is installed (tests/packaging).
"""

import contextlib
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.support.clock import eventually
from tests.support.netns import Place
from tests.support.requirements import needs_program

SCRIPT = Path(__file__).with_name("machine.sh")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOT_SECONDS = 30.0

_TIDY = (
    'mount -t cgroup2 cgroup2 "$1"; cd "$1"; [ ! -e "relay-tests-$2" ] || find "relay-tests-$2" -depth -type d -exec rmdir {} +'
)


class Machine:
    """Booted inside `with`, and gone afterwards."""

    def __init__(self, place: Place) -> None:
        needs_program("systemd-analyze")
        self._place = place
        self._directory = tempfile.TemporaryDirectory(prefix="machine-")

    def __enter__(self) -> "Machine":
        # It ends with the tests, also when those are killed.
        launcher = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "sh", str(SCRIPT), self._directory.name]
        self._process = self._place.popen(launcher, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._init = eventually(self._find_init, within=BOOT_SECONDS)
        if self._init <= 0 or not eventually(self._booted, within=BOOT_SECONDS):
            self._end()
            assert self._process.stdout is not None
            raise AssertionError(f"no machine: {self._process.stdout.read().decode(errors='replace')}")
        self.run("systemctl log-target journal")  # now that there is one
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            print(self.run("journalctl --no-pager -o short-precise", check=False).stdout)
        self._end()

    def run(self, command: str, *, check: bool = True, folder: str = "/", **options: str) -> subprocess.CompletedProcess[str]:
        """A shell's command line, as root at its console; a failing command ends it."""
        done = subprocess.run(
            [*self._entering(), "sh", "-ec", f"cd {folder}\n{command}"],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self._environment(options),
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {"PATH": PATH, "HOME": "/root", "LC_ALL": "C", **more}

    def _entering(self) -> list[str]:
        return [
            "nsenter",
            f"--target={self._init}",
            "--mount",
            "--pid",
            "--net",
            "--uts",
            "--ipc",
            "--cgroup",
            "--root",
            "--wd",
        ]

    def _find_init(self) -> int:
        """Process 1 of the machine, as numbered here."""
        if self._process.poll() is not None:
            return -1
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with contextlib.suppress(OSError):  # a program of machine.sh that has ended meanwhile
            for pid in map(int, children.read_text().split()):
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return pid
        return 0

    def _booted(self) -> bool:
        return self.run("systemctl is-system-running", check=False).stdout.strip() in ("running", "degraded")

    def _end(self) -> None:
        self._process.kill()  # and with it, for unshare promised that, process 1 and all others
        self._process.wait()
        assert eventually(self._tidied), "control groups are left"
        self._directory.cleanup()

    def _tidied(self) -> bool:
        """Control groups outlive their processes by a moment, and have to be removed one by one."""
        tidy = ["unshare", "--mount", "sh", "-ec", _TIDY, "sh", self._directory.name, str(self._process.pid)]
        return subprocess.run(tidy, check=False, capture_output=True).returncode == 0
