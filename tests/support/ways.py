"""The ways that most tests are run over: captures, families, directions and back ends in the combinations that exist."""

from itertools import product

from tests.support.network import FAMILIES
from tests.support.world import Way

CAPTURES = ("redirect", "tproxy")
UNTRACKED = "untracked"  # tproxy with notrack
BACKENDS = ("nft", "iptables")

POD_WAYS = [
    Way(capture, family, direction, backend)
    for capture, family, direction, backend in product(CAPTURES, FAMILIES, ("outbound", "inbound"), BACKENDS)
]
GATEWAY_WAYS = [Way(capture, family, "gateway") for capture, family in product(CAPTURES, FAMILIES)]

# Every way there is; and those of one back end, for what cannot depend on it.
EVERY_WAY = [*POD_WAYS, *GATEWAY_WAYS]
NFT_WAYS = [way for way in EVERY_WAY if way.backend == "nft"]
