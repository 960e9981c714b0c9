"""The programs that speak to the kernel for us: found, run with a limit, their complaints made into messages.

Owns: every subprocess of the rules. What they are told goes over stdin, never through a shell.
Never here: what they are told (nft, iptables); whose death is waited for (keeper).
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache

from sidecar.errors import FAILED, NO_PRIVILEGE, Problem, RelayError, reason

SECONDS = 20.0  # a transaction takes milliseconds; a lock that another program holds may take longer
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"  # a user's PATH seldom has the sbin directories
PACKAGES = {"nft": "nftables"}
CAP_NET_ADMIN, CAP_NET_RAW = 1 << 12, 1 << 13  # linux/capability.h
NEEDS, NEEDS_LEGACY = CAP_NET_ADMIN, CAP_NET_ADMIN | CAP_NET_RAW  # iptables-legacy talks over a raw socket, and tells no errno
NOT_PERMITTED = ("operation not permitted", "permission denied")
XTABLES_LOCK = "/run/xtables.lock"  # of iptables-legacy, which makes it


_shared: set[int] = set()


class ProgramFailed(RelayError):
    """A program ran and complained."""


@cache
def path_of(name: str) -> str | None:
    """Where a program is; None when this machine has none of that name."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_PATH)


def missing(name: str) -> RelayError:
    """Exit status 1: a program that is needed, and where it comes from."""
    package = PACKAGES.get(name, "iptables")
    step = f"install it (Debian: apt-get install {package}), or choose another rules.backend"
    return RelayError(Problem(name, "the program in PATH", "none", step))


def share(descriptor: int) -> None:
    """Programs hold it open too, from now on: whoever waits for its end waits for one that outlives us as well."""
    _shared.add(descriptor)


def unshare(descriptor: int) -> None:
    """Before it is closed."""
    _shared.discard(descriptor)


def run(name: str, arguments: Sequence[str], stdin: str = "", *, seconds: float = SECONDS) -> str:
    """What the program printed; ProgramFailed with its complaint, RelayError when it cannot be run."""
    path = path_of(name)
    if path is None:
        raise missing(name)
    try:
        done = subprocess.run(
            [path, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=_environment(),
            pass_fds=_shared,
        )
    except subprocess.TimeoutExpired:
        raise RelayError(Problem(name, f"to end within {seconds:g} s", "it still ran and was killed")) from None
    except OSError as error:
        raise RelayError(Problem(path, "a program that runs", reason(error))) from None
    if done.returncode:
        raise _complaint(name, arguments, done.returncode, done.stderr)
    return done.stdout


def holds(capabilities: int) -> bool:
    """Whether we, and so our programs, hold all of them."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        effective = next((line.split()[1] for line in file if line.startswith("CapEff:")), "0")
    return int(effective, 16) & capabilities == capabilities


def _environment() -> dict[str, str]:
    """Messages in one language; a lock file where the root file system is read-only."""
    settings = {"LC_ALL": "C", "PATH": os.environ.get("PATH", SYSTEM_PATH)}
    if not os.access(XTABLES_LOCK if os.path.exists(XTABLES_LOCK) else os.path.dirname(XTABLES_LOCK), os.W_OK):
        settings["XTABLES_LOCKFILE"] = os.devnull
    return settings


def _complaint(name: str, arguments: Sequence[str], status: int, stderr: str) -> RelayError:
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("#")]
    said = lines[0] if lines else f"exit status {status}"
    if said.endswith(":") and len(lines) > 1:  # iptables-nft-restore puts its name into a line of its own
        said = f"{said} {lines[1]}"
    needs = NEEDS_LEGACY if "legacy" in name else NEEDS
    if any(words in stderr.lower() for words in NOT_PERMITTED) or not holds(needs):
        needed = "CAP_NET_ADMIN and CAP_NET_RAW" if needs == NEEDS_LEGACY else "CAP_NET_ADMIN"
        step = "run it as root, or give the container this capability"
        return ProgramFailed(Problem(name, needed, said, step), exit_status=NO_PRIVILEGE)
    return ProgramFailed(Problem(" ".join([name, *arguments]), "success", said), exit_status=FAILED)
