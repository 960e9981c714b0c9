"""How much of the relay one client may have: connections at a time, and new ones per second.

    [[element]]
    name = "limit"
    use = "relaycore.elements.limits:Connections"
    options = { most = 20, prefix6 = 64 }

A client is its network of prefix4 or prefix6 bits. Each load begins to count anew: flows that are open count where they began.

Owns: what is remembered of clients, at most MOST_CLIENTS of them. Who may touch it: flows, on any thread.
Never here: a byte of a flow; a wait; a client that is remembered longer than it matters.
"""

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from relaycore.element import REJECT, RELEASE, Element, Flow, Options, Verdict

MOST_CLIENTS = 100_000
EXPIRED_AT_ONCE = 8  # more than the one that an opening adds, so that none pile up; few, so that no opening takes long

Client = tuple[int, int]


class Clients:
    """Which client an address belongs to."""

    def __init__(self, options: Options) -> None:
        self._bits = {4: options.integer("prefix4", 1, 32, 32), 6: options.integer("prefix6", 1, 128, 64)}

    def of(self, text: str) -> Client:
        """The client, as a key."""
        address = ipaddress.ip_address(text)
        return address.version, int(address) >> (address.max_prefixlen - self._bits[address.version])


class Places:
    """How many connections each client has open; one that has none is forgotten."""

    def __init__(self, options: Options) -> None:
        self.clients = Clients(options)
        self.most = options.integer("most", 1, 1_000_000)
        self.open: dict[Client, int] = {}
        self._lock = threading.Lock()

    def take(self, client: Client) -> bool:
        """Whether there is a place left. It is given back with give_back()."""
        with self._lock:
            count = self.open.get(client, 0)
            if count >= self.most or (count == 0 and len(self.open) >= MOST_CLIENTS):
                return False
            self.open[client] = count + 1
            return True

    def give_back(self, client: Client) -> None:
        """One less."""
        with self._lock:
            self.open[client] -= 1
            if not self.open[client]:
                del self.open[client]


class Connections(Element):
    """Refuses a client that has `most` connections open; and one more client than can be counted."""

    shared: Places

    def __init__(self, flow: Flow, shared: Places) -> None:
        super().__init__(flow, shared)
        self._client: Client | None = None  # whose place this flow has

    @classmethod
    def configure(cls, options: Options) -> Places:
        """See Places."""
        return Places(options)

    def opened(self) -> Verdict | None:
        """See Element."""
        client = self.shared.clients.of(self.flow.client[0])
        if not self.shared.take(client):
            return REJECT
        self._client = client
        return None

    def closed(self, reason: str) -> None:
        """See Element."""
        if self._client is not None:
            self.shared.give_back(self._client)
            self._client = None


class Buckets:
    """A token bucket for each client: full at first, and forgotten when it must be full again."""

    def __init__(self, options: Options) -> None:
        self.clients = Clients(options)
        self.per_second = options.integer("per_second", 1, 1_000_000)
        self.burst = options.integer("burst", 1, 1_000_000)
        self.clock: Callable[[], float] = time.monotonic
        self.known: OrderedDict[Client, tuple[float, float]] = OrderedDict()  # tokens, and when; the latest is the last
        self._lock = threading.Lock()

    def take(self, client: Client) -> bool:
        """Whether there is a token left."""
        with self._lock:
            now = self.clock()
            tokens, then = self.known.pop(client, (float(self.burst), now))
            tokens = min(float(self.burst), tokens + (now - then) * self.per_second)
            granted = tokens >= 1
            self._forget(now)
            self.known[client] = (tokens - 1 if granted else tokens, now)
            return granted

    def _forget(self, now: float) -> None:
        """Those who have been idle until their bucket is full, a few at a time; and the most idle one for want of room."""
        full = self.burst / self.per_second
        for _ in range(EXPIRED_AT_ONCE):
            if not self.known:
                return
            _, then = next(iter(self.known.values()))
            if now - then < full and len(self.known) < MOST_CLIENTS:
                return
            self.known.popitem(last=False)


class Rate(Element):
    """Refuses a client that opens more than `per_second` connections, after a `burst` of them."""

    shared: Buckets

    @classmethod
    def configure(cls, options: Options) -> Buckets:
        """See Buckets."""
        return Buckets(options)

    def opened(self) -> Verdict:
        """See Element."""
        return RELEASE if self.shared.take(self.shared.clients.of(self.flow.client[0])) else REJECT
