"""Sockets that become readable when somebody changes rules or routes in this network namespace.

Owns: which groups of netlink tell that. Never here: what was changed; a fresh look says it.
"""

import socket

from sidecar.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, listening

NFNLGRP_NFTABLES = 7  # linux/netfilter/nfnetlink.h; iptables-nft changes are told there too, those of iptables-legacy nowhere
# linux/rtnetlink.h
RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE = 7, 8, 11, 19


def watch_rules() -> socket.socket:
    """Tells of changes in nf_tables. PermissionError without CAP_NET_ADMIN."""
    return listening(NETLINK_NETFILTER, [NFNLGRP_NFTABLES])


def watch_routing() -> socket.socket:
    """Tells of changes to ip rules and routes."""
    return listening(NETLINK_ROUTE, [RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE])
