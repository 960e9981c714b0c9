"""From a configuration to a plan.

Owns: what a plan is put together from. Never here: the spelling of nft or iptables; anything that asks the machine.
"""

from sidecar.config import Config
from sidecar.errors import BAD_CONFIG, RelayError
from sidecar.rules.choices import captured, problems
from sidecar.rules.model import V4, V6, WITHOUT_VALUES, Chain, Plan, Routing
from sidecar.rules.redirect import redirect_chains
from sidecar.rules.tproxy import tproxy_chains
from sidecar.rules.untracked import raw_chains


def make_plan(config: Config, backend: str, *, guarded: bool = False) -> Plan:
    """The plan for nft or iptables; RelayError (78) when there can be none. `guarded`: removed when the relay dies."""
    found = problems(config, backend, guarded=guarded)
    if found:
        raise RelayError(*found, exit_status=BAD_CONFIG)
    rules = config.rules
    families = (V4, V6) if rules.ipv6 else (V4,)
    mangle = tproxy_chains(config, families, backend)
    chains = [*redirect_chains(config, families, backend), *mangle, *raw_chains(config, mangle)]
    routed = any(listener.capture == "tproxy" for listener in captured(config))
    routing = Routing((rules.local_mark, rules.capture_mark), rules.route_table, rules.rule_priority)
    return Plan(families, tuple(_without_impossible(chain) for chain in chains), routing if routed else None)


def _without_impossible(chain: Chain) -> Chain:
    """A list of ports, users or networks that is empty selects nothing."""
    rules = [rule for rule in chain.rules if all(match.values or match.kind in WITHOUT_VALUES for match in rule.matches)]
    return chain._replace(rules=tuple(rules))
