"""TPROXY: mangle looks at every packet, and a socket is given to the captured ones.

A connection is decided at its SYN, and conntrack's mark remembers, so that connections older than the rules go on:

    capture_mark   an outbound connection that is captured: OUTPUT marks its packets, which brings them to lo and to PREROUTING
    local_mark     the relay's connection to the app as the client: the app's answers are brought to lo
    mark           decided otherwise: captured inbound, or left alone; OUTPUT lets it pass

A packet in mid-stream of which conntrack knows nothing (it was flushed, or is new here) goes by PREROUTING once, where a socket
of the relay tells whose it is.

With notrack nothing is remembered of what comes in or passes: a socket of the relay tells what is captured, and one of anybody
else what is older than the rules.

Owns: the chains of mangle, but for input. Never here: which connections (selection); the spelling of nft or iptables.
"""

from collections.abc import Sequence

from sidecar.config import Config
from sidecar.rules.choices import Port, on_address, ports_of, when_dead
from sidecar.rules.model import BOTH, V4, V6, Action, Chain, Match, Rule
from sidecar.rules.selection import (
    CONNECTED,
    DST_LOCAL,
    LISTENING,
    NOT_DST_LOCAL,
    NOT_SYN,
    OLDER,
    ON_LO,
    OWN_ADDRESSES,
    PASSING,
    RETURN,
    SYN,
    TCP_ALONE,
    Actions,
    Matches,
    gateway_exemptions,
    gateway_selection,
    inbound_exemptions,
    inbound_selection,
    outbound_captures,
    outbound_exemptions,
    own_mark,
    own_owner,
)

LOOPBACK = {V4: "127.0.0.1", V6: "::1"}

NOT_SRC_LOCAL = Match("src_local", negated=True)
TRANSPARENT = Match("transparent")
OLDER_HERE = Rule(OLDER.why, (NOT_SYN, CONNECTED), (RETURN,))
ACCEPT, DROP = Action("accept"), Action("drop")


def tproxy_chains(config: Config, families: tuple[int, ...], backend: str) -> list[Chain]:
    """The chains for the listeners with capture = "tproxy"; none when there are none."""
    dead = when_dead(config.rules.on_failure, "tproxy", backend)
    making = _Making(config, families, dead if backend == "nft" else "")  # under iptables the target itself drops
    chains = [Chain("mangle", "prerouting", tuple(making.prerouting())), Chain("mangle", "output", tuple(making.output()))]
    return [chain for chain in chains if chain.rules]


class _Making:
    """The two chains, which work together."""

    def __init__(self, config: Config, families: tuple[int, ...], dead: str) -> None:
        self.config = config
        self.families = families
        self.dead = dead
        self.outbound = ports_of(config, families, "outbound", "tproxy")
        self.inbound = ports_of(config, families, "inbound", "tproxy")
        self.gateway = ports_of(config, families, "gateway", "tproxy")
        self.tracked = not config.rules.notrack  # what comes in, and what passes
        self.spoofs = any(port.listener.preserve_client for port in self.inbound)
        rules = config.rules
        self.marked = {name: Match("mark", (getattr(rules, name),)) for name in ("mark", "local_mark", "capture_mark")}
        self.known = {name: Match("ct_mark", (getattr(rules, name),)) for name in self.marked}
        self.remember = {name: Action("set_ct_mark", (getattr(rules, name),)) for name in self.marked}
        self.keep_local = Action("set_mark", (rules.local_mark,))
        self.send_to_lo = Action("set_mark", (rules.capture_mark,))

    def prerouting(self) -> list[Rule]:
        if not self.outbound and not self.inbound and not self.gateway:
            return []
        rules = [TCP_ALONE, self._own()]
        if self.outbound or self.spoofs:
            rules += self._brought_to_lo()
        rules.append(Rule("other loopback traffic", (ON_LO,), (RETURN,)))
        if self.inbound or self.gateway:
            divert = Action("divert", (self.config.rules.local_mark,))
            rules.append(Rule("captured connections", (NOT_SYN, TRANSPARENT), (divert,)))
            rules += [*(self._cookies() if self.tracked else []), OLDER if self.tracked or not self.inbound else OLDER_HERE]
            rules += [*self._passing(), PASSING]
        if self.inbound:
            rules += [*inbound_exemptions(self.config), *self._arriving()]
        return rules

    def output(self) -> list[Rule]:
        if not self.outbound and not self.spoofs:
            return []
        rules = [TCP_ALONE, *own_mark(self.config)]
        if self.spoofs:
            why = "answers of the app to the relay as the client"
            rules.append(Rule(why, (self.known["local_mark"],), (self.keep_local, RETURN)))
        if self.outbound:
            why = "answers of the relay to captured clients"
            rules.append(Rule(why, (DST_LOCAL, NOT_SRC_LOCAL), (self.remember["capture_mark"], RETURN)))
        rules += [
            OWN_ADDRESSES,
            Rule("captured connections", (self.known["capture_mark"],), (self.send_to_lo, RETURN)),
            Rule("captured inbound, or left alone", (self.known["mark"],), (RETURN,)),
            *own_owner(self.config),
            Rule("unknown to conntrack: PREROUTING tells whose", (NOT_SYN, Match("ct_new")), (self.send_to_lo, RETURN)),
        ]
        if self.outbound:
            rules += [OLDER, *outbound_exemptions(self.config)]
        for port in self.outbound:
            # The packet's mark first: what conntrack does not track ends the rule there, and must not pass by.
            captured = (self.send_to_lo, self.remember["capture_mark"], RETURN)
            rules += outbound_captures(self.config, f"outbound: to {port.listener.name}", port.family, captured)
        return rules

    def _own(self) -> Rule:
        if self.spoofs:
            actions: Actions = (self.remember["local_mark"], RETURN)
            return Rule("the relay as the client: answers must come back", (self.marked["mark"],), actions)
        return Rule("connections of the relay", (self.marked["mark"],), (RETURN,))

    def _brought_to_lo(self) -> list[Rule]:
        """What OUTPUT has marked."""
        brought: Matches = (ON_LO, self.marked["capture_mark"])
        captured: Matches = (*brought, self.known["capture_mark"])
        rules = [Rule("captured connections", (*brought, NOT_SYN, TRANSPARENT), (self.remember["capture_mark"], ACCEPT))]
        for port in self.outbound:
            for family in self.families if port.family == BOTH else (port.family,):
                to = Action("tproxy", (port.listener.port, on_address(port.listener) or LOOPBACK[family]))
                rules.append(Rule(f"outbound: to {port.listener.name}", captured, (to, ACCEPT), family))
        if self.outbound:
            rules += self._nobody(captured, BOTH)
        alone = (self.remember["mark"], DROP)
        return [*rules, Rule("not of the relay: left alone, once sent again", brought, alone)]

    def _cookies(self) -> list[Rule]:
        """An answer to a SYN cookie belongs to no socket yet."""
        cookie: Matches = (NOT_SYN, Match("ct_original"), self.known["mark"])
        directed = [*((port, DST_LOCAL) for port in self.inbound), *((port, NOT_DST_LOCAL) for port in self.gateway)]
        return [self._take(port, (*cookie, where), "answers to SYN cookies", port.family) for port, where in directed]

    def _passing(self) -> list[Rule]:
        rules = gateway_exemptions(self.config) if self.gateway else []
        for port in self.gateway:
            for family, matches in gateway_selection(self.config, port.family):
                rules += [self._take(port, (SYN, *matches), "passing", family), *self._nobody((SYN, *matches), family)]
        return rules

    def _arriving(self) -> list[Rule]:
        rules = []
        selected = (SYN, *inbound_selection(self.config))
        # A socket in TIME_WAIT hides the listener: without this line a port that a client uses again would not be captured.
        again = tuple(TRANSPARENT if match == LISTENING else match for match in selected)
        for port in self.inbound:
            if again != selected:
                rules.append(self._take(port, again, "inbound, a port used again", port.family))
            rules += [self._take(port, selected, "inbound", port.family), *self._nobody(selected, port.family)]
            if not self.tracked:
                # Of an older connection with a translated address, which no socket here has, conntrack knows.
                cookie = (NOT_SYN, Match("ct_new"), *inbound_selection(self.config))
                rules.append(self._take(port, cookie, "answers to SYN cookies", port.family))
        return rules

    def _take(self, port: Port, matches: Matches, why: str, family: int) -> Rule:
        to = Action("tproxy", (port.listener.port, on_address(port.listener)))
        remember = (self.remember["mark"],) if self.tracked else ()
        actions = (to, self.keep_local, *remember, ACCEPT)
        return Rule(f"{why}: to {port.listener.name}", matches, actions, family)

    def _nobody(self, matches: Sequence[Match], family: int) -> list[Rule]:
        if self.dead not in ("reset", "drop"):
            return []
        return [Rule("nobody listens", tuple(matches), (Action(self.dead),), family)]
