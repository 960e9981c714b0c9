"""What the kernel tells of changes in nf_tables: those to what is ours, and the end of each transaction with its author.

Owns: the messages of nfnetlink's group, and which tables, chains and rules are ours. Pure.
Never here: what a change means for the rules (view); a socket.
"""

import re
from typing import Final, NamedTuple

from sidecar.netlink import attributes, parse_messages, text_of
from sidecar.rules import iptables, nft
from sidecar.rules.model import PREFIX, TABLE
from sidecar.rules.tables import HEAD, NFNL_SUBSYS_NFTABLES, NUMBER, Rule, Table, rule_of

# linux/netfilter/nf_tables.h
NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE, NFT_MSG_NEWRULE, NFT_MSG_DELRULE, NFT_MSG_NEWGEN = 0, 2, 6, 8, 15
NFT_MSG_NEWCHAIN, NFT_MSG_DELCHAIN = 3, 5
NFTA_TABLE_NAME, NFTA_CHAIN_NAME = 1, 3  # the first attribute of a chain, a set, an object is its table's name too
NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME = 2, 3

NEW_TABLE: Final = "new table"
DEL_TABLE: Final = "deleted table"
NEW_RULE: Final = "new rule"
DEL_RULE: Final = "deleted rule"
OTHER: Final = "other"  # a chain, a set, an object
DONE: Final = "done"  # a transaction

OURS: Final = Table(1, TABLE)  # NFPROTO_INET
SHARED: Final = frozenset(Table(family, name) for family in (2, 10) for name in iptables.TABLES)  # NFPROTO_IPV4, NFPROTO_IPV6
NAMES = (TABLE.encode(), PREFIX.encode())  # a message about something of ours holds one of the two

_KINDS = {
    NFT_MSG_NEWTABLE: NEW_TABLE,
    NFT_MSG_DELTABLE: DEL_TABLE,
    NFT_MSG_NEWRULE: NEW_RULE,
    NFT_MSG_DELRULE: DEL_RULE,
    NFT_MSG_NEWGEN: DONE,
}
_RECORD = re.compile(rf"{nft.COMMENT} (\w+)".encode())


class Event(NamedTuple):
    """One change to something of ours, or the end of a transaction, anybody's."""

    kind: str
    table: Table = OURS
    chain: str = ""
    handle: int = 0
    digest: str = ""  # of the record that this rule is
    by: str = ""  # who made the transaction


def parse_events(datagram: bytes) -> list[Event]:
    """What a datagram tells of ours. Never an exception, whatever it holds."""
    messages = parse_messages(datagram)
    if not any(name in datagram for name in NAMES):  # others may load 60,000 rules
        messages = [message for message in messages[:1] if message.type & 0xFF == NFT_MSG_NEWGEN]
    found = (_event(message.type, message.body) for message in messages if len(message.body) >= HEAD.size)
    return [event for event in found if event]


def digest_of(rule: Rule) -> str:
    """Which plan the record tells; "" for any other rule."""
    if (rule.table == OURS and rule.chain == nft.RECORD) or (rule.table in SHARED and rule.chain == iptables.RECORD):
        told = _RECORD.search(rule.words)
        return told[1].decode() if told else ""
    return ""


def _event(kind: int, body: bytes) -> Event | None:
    if kind >> 8 != NFNL_SUBSYS_NFTABLES:
        return None
    word = _KINDS.get(kind & 0xFF, OTHER)
    if word == DONE:
        return Event(DONE, by=_author(body))
    if word in (NEW_RULE, DEL_RULE):
        rule = rule_of(body)
        if not _is_ours(rule):
            return None
        return Event(word, rule.table, rule.chain, rule.handle, digest_of(rule))
    parts = attributes(body[HEAD.size :])
    table = Table(body[0], text_of(parts.get(NFTA_TABLE_NAME, b"")))
    chain = text_of(parts.get(NFTA_CHAIN_NAME, b"")) if kind & 0xFF in (NFT_MSG_NEWCHAIN, NFT_MSG_DELCHAIN) else ""
    return Event(word, table, chain) if table == OURS or (table in SHARED and chain.startswith(PREFIX)) else None


def _is_ours(rule: Rule) -> bool:
    """Under iptables: in a chain of ours, or in a base chain on the way to one."""
    if rule.table == OURS:
        return True
    on_the_way = rule.chain in iptables.BASES.values() and PREFIX.encode() in rule.words
    return rule.table in SHARED and (rule.chain.startswith(PREFIX) or on_the_way)


def _author(body: bytes) -> str:
    """ "nft (pid 12)"; "" where the kernel does not say. The number is that of the machine's first process namespace."""
    parts = attributes(body[HEAD.size :])
    name, number = text_of(parts.get(NFTA_GEN_PROC_NAME, b"")), parts.get(NFTA_GEN_PROC_PID, b"")
    return f"{name} (pid {NUMBER.unpack(number)[0]})" if name and len(number) == NUMBER.size else name
