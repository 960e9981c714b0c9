"""Sockets that become readable when somebody changes rules or routes in this network namespace.

Owns: which groups of netlink tell that. Never here: what was changed; a fresh look says it.
"""

import contextlib
import socket

from sidecar.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, listening

NFNLGRP_NFTABLES = 7  # linux/netfilter/nfnetlink.h; iptables-nft changes are told there too, those of iptables-legacy nowhere
# linux/rtnetlink.h
RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE = 7, 8, 11, 19


SO_RCVBUFFORCE = 33  # asm-generic/socket.h
RULES_BUFFER_BYTES = 16 << 20  # others may load tens of thousands of rules in one transaction, which is told all at once


def watch_rules() -> socket.socket:
    """Tells of changes in nf_tables. PermissionError without CAP_NET_ADMIN."""
    watcher = listening(NETLINK_NETFILTER, [NFNLGRP_NFTABLES])
    with contextlib.suppress(OSError):  # then messages may be lost, which is told too
        watcher.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RULES_BUFFER_BYTES)
    return watcher


def watch_routing() -> socket.socket:
    """Tells of changes to ip rules and routes."""
    return listening(NETLINK_ROUTE, [RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE])
