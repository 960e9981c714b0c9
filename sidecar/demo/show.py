"""`relay-sidecar demo`: who does what, in which order.

The command forks one process into namespaces of its own, waits for it, and ends it when a signal comes. With that process the
kernel takes away all that the demo has made. `--keep` lets it live on.

Owns: the two processes and their pipe. Never here: what is shown (scenes), how (screen).
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from argparse import Namespace
from typing import NoReturn

from sidecar.demo.machine import Machine, check_place, leave_for_it
from sidecar.demo.peers import silence
from sidecar.demo.relay import CONFIG, Relay, package
from sidecar.demo.scenes import Stage
from sidecar.demo.screen import Json, Screen, Text
from sidecar.errors import FAILED, Problem, RelayError, reason
from sidecar.privileges import die_with, outlive_parent
from sidecar.wakeup import ENDING, wake_by_ending


def demo(arguments: Namespace) -> int:
    """The exit status; 128 and the number of the signal that ended it."""
    for path in (package(), sys.executable):
        check_place(path)
    screen: Screen = Json() if arguments.json else Text()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever started us may ignore it, and nobody could be waited for
    wake = wake_by_ending()
    enter = leave_for_it()
    words, word = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        raise RelayError(Problem("demo", "one more process", reason(error), "see ulimit -u")) from None
    if pid == 0:
        os.close(words)
        _show(arguments, screen, word)
    os.close(word)
    ready, _, _ = select.select([wake, words], [], [])
    if wake in ready:
        number = os.read(wake, 1)[0]
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        sys.stderr.write(f"\n{signal.Signals(number).name}: the demo is gone, and all that it had made\n")
        return 128 + number
    if status := os.read(words, 1):
        screen.kept(pid, f"nsenter -t {pid} {enter}")
        return status[0]
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _show(arguments: Namespace, screen: Screen, word: int) -> NoReturn:
    """Of the first process in the new namespaces; its parent is outside of them."""
    status = FAILED
    try:
        signal.set_wakeup_fd(-1)
        for number in ENDING:
            signal.signal(number, signal.SIG_DFL)  # the kernel sends none of them to the first process of a namespace
        die_with(0)
        if _is_alone(word):
            os._exit(status)
        os.setsid()  # Ctrl-C is for the parent
        status = _perform(arguments, screen)
        if arguments.keep:
            _keep(word, status)
    except RelayError as error:
        sys.stderr.write(f"{error}\n")
        status = error.exit_status
    except SystemExit:  # whoever reads what we print has gone
        pass
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"{Problem('demo', 'a machine of its own', str(error))}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


def _is_alone(word: int) -> bool:
    """Whether the parent died before we promised to die with it: nobody reads the pipe then."""
    poll = select.poll()
    poll.register(word, 0)
    return bool(poll.poll(0))


def _perform(arguments: Namespace, screen: Screen) -> int:
    begun = time.monotonic()
    machine = Machine()
    relay = Relay(machine, arguments.capture, arguments.backend)
    screen.hosts(as_root=relay.as_root)
    screen.command(f"--config {CONFIG} &", "")
    screen.command("wait", relay.wait())
    screen.command(f"rules apply --config {CONFIG}", relay.apply_rules())
    stage = Stage(machine, relay, arguments.size)
    results = []
    for number, scene in enumerate(stage.scenes(), 1):
        screen.scene(number, scene.title)
        results.append(stage.play(scene, lambda count, ns: screen.moving(count, arguments.size, ns)))
        screen.result(results[-1])
    screen.counters(stage.counted(), relay.stats())
    ended = 0 if arguments.keep else relay.stop()
    screen.end(results, time.monotonic() - begun, kept=arguments.keep)
    return 0 if ended == 0 and all(result.fine for result in results) else FAILED


def _keep(word: int, status: int) -> None:
    """Tell the parent to go with this exit status, give the terminal up, and stay until somebody ends us."""
    wake = wake_by_ending()
    silence()
    outlive_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what a shell in here leaves behind is reaped
    os.write(word, bytes([status]))
    os.close(word)
    os.read(wake, 1)
