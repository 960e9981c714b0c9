"""A worker that looks for news before it sleeps: busy_poll."""

from pathlib import Path

from tests.support.path import Pair
from tests.support.peers import receive
from tests.support.toml import to_toml
from tests.support.world import World, looped

QUESTIONS = 400


def sleeps(world: World) -> int:
    """How often the relay's threads have gone to sleep so far; all but the worker do so rarely."""
    files = Path(f"/proc/{world.relay.process.pid}/task").glob("*/status")
    lines = [line for file in files for line in file.read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches:"))


def asked(world: World, pair: Pair) -> int:
    """How often the worker has slept meanwhile."""
    before = sleeps(world)
    for _ in range(QUESTIONS):
        for sender, receiver in ((pair.client, pair.origin), (pair.origin, pair.client)):
            sender.sendall(b"word")
            assert receive(receiver, 4) == b"word"
    return sleeps(world) - before


def test_a_worker_that_looks_for_news_does_not_sleep_between_two_questions() -> None:
    """Each question would wait until the kernel has woken the worker; or who did not ask for it would pay for it."""
    with looped(settings={"relay": {"workers": 1}}) as world:
        world.path.listen()
        pair, config = world.path.live_pair(), world.relay.config
        assert asked(world, pair) > QUESTIONS
        world.relay.write_config(to_toml({**config, "relay": {**config["relay"], "busy_poll": "1000us"}}))
        world.relay.ask("reload")
        assert asked(world, pair) < QUESTIONS / 2


def test_a_quiet_worker_sleeps_all_the_same() -> None:
    """A relay without traffic would burn a CPU."""
    with looped(settings={"relay": {"workers": 1, "busy_poll": "1000us"}}) as world:
        world.path.listen()
        pair = world.path.live_pair()
        asked(world, pair)
        world.relay.assert_idle()
