"""What nf_tables holds, read by nfnetlink: no program is needed, nothing is made by looking, and nobody else's rules are read.

Owns: the reading of tables, chains and rules, as far as it takes to know them again, and the one change that a program cannot
make safely: deleting what is empty, if nothing has changed since it was found empty.
Never here: a rule that is written; the whole ruleset, which others may have made 60,000 rules long.
"""

import errno
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from sidecar.netlink import (
    BUFFER_BYTES,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    Message,
    attribute,
    attributes,
    dump,
    message,
    opened,
    order,
    parse_messages,
    text_of,
)

# linux/netfilter/nfnetlink.h, nf_tables.h
NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_BATCH_GENID = 16, 17, 1
NFT_MSG_GETTABLE, NFT_MSG_DELTABLE, NFT_MSG_GETCHAIN, NFT_MSG_DELCHAIN = 1, 2, 4, 5
NFT_MSG_NEWRULE, NFT_MSG_GETRULE, NFT_MSG_GETGEN = 6, 7, 16
NFTA_TABLE_NAME, NFTA_TABLE_USE = 1, 3
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY = 1, 3, 4, 5
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA = 1, 2, 3, 4, 7
NFTA_GEN_ID = 1
NF_ACCEPT = 1

HEAD = struct.Struct("=BBH")  # nfgenmsg: family, version, res_id (network order)
NUMBER, HANDLE = struct.Struct(">I"), struct.Struct(">Q")  # nf_tables' attributes are in network order
TRIES = 5
ABSENT = (errno.ENOENT, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL)  # no nf_tables in this kernel, or no such chain


class Table(NamedTuple):
    """A table: its family is an NFPROTO_ number."""

    family: int
    name: str


class Chain(NamedTuple):
    """A chain: a base chain has a hook and a policy."""

    name: str
    is_base: bool
    accepts: bool


class Rule(NamedTuple):
    """A rule, as it can be known again: a handle is given once in the life of a table."""

    table: Table
    chain: str
    handle: int
    words: bytes  # what it does, and its comment, in the kernel's form


def tables() -> list[Table]:
    """Every table of this network namespace. PermissionError without CAP_NET_ADMIN."""
    answers = _listed(NFT_MSG_GETTABLE, 0, b"")
    return [_table_of(answer) for answer in answers]


def chains(family: int, table: str) -> list[Chain]:
    """The chains of a table."""
    answers = _listed(NFT_MSG_GETCHAIN, family, attribute(NFTA_CHAIN_TABLE, _name(table)))
    found = []
    for answer in answers:
        parts = _parts(answer)
        if text_of(parts.get(NFTA_CHAIN_TABLE, b"")) == table:  # kernels before 6.2 list those of every table
            policy = parts.get(NFTA_CHAIN_POLICY, NUMBER.pack(NF_ACCEPT))
            name = text_of(parts.get(NFTA_CHAIN_NAME, b""))
            found.append(Chain(name, NFTA_CHAIN_HOOK in parts, NUMBER.unpack(policy)[0] == NF_ACCEPT))
    return found


def existing(family: int, table: str, names: Iterable[str]) -> list[str]:
    """Those of the chains that are there. Each is asked for by its name: others may have made 30,000."""
    found = []
    with opened(NETLINK_NETFILTER) as netlink:
        for name in names:
            body = HEAD.pack(family, 0, 0) + _named(NFTA_CHAIN_TABLE, table) + _named(NFTA_CHAIN_NAME, name)
            try:
                order(netlink, _type(NFT_MSG_GETCHAIN), body)
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
            else:
                found.append(name)
    return found


def has_rules(family: int, table: str, chain: str = "") -> bool:
    """Whether a chain, or any chain of the table, holds a rule, anybody's. The first one is enough."""
    names = _named(NFTA_RULE_TABLE, table) + (_named(NFTA_RULE_CHAIN, chain) if chain else b"")
    with opened(NETLINK_NETFILTER) as netlink:
        netlink.send(message(_type(NFT_MSG_GETRULE), HEAD.pack(family, 0, 0) + names, NLM_F_REQUEST | NLM_F_DUMP))
        return any(answer.type == _type(NFT_MSG_NEWRULE) for answer in parse_messages(netlink.recv(BUFFER_BYTES)))


def rules(family: int, table: str, chain: str = "") -> list[Rule]:
    """The rules of a chain, or of all chains of a table."""
    names = _named(NFTA_RULE_TABLE, table) + (_named(NFTA_RULE_CHAIN, chain) if chain else b"")
    found = [rule_of(answer.body) for answer in _listed(NFT_MSG_GETRULE, family, names)]
    return [rule for rule in found if rule.table == (family, table) and chain in ("", rule.chain)]  # older kernels list more


def rule_of(body: bytes) -> Rule:
    """A rule, from a message about it. What a truncated one lacks is empty."""
    parts = attributes(body[HEAD.size :])
    handle = parts.get(NFTA_RULE_HANDLE, b"")
    return Rule(
        Table(body[0] if body else 0, text_of(parts.get(NFTA_RULE_TABLE, b""))),
        text_of(parts.get(NFTA_RULE_CHAIN, b"")),
        HANDLE.unpack(handle)[0] if len(handle) == HANDLE.size else 0,
        parts.get(NFTA_RULE_EXPRESSIONS, b"") + parts.get(NFTA_RULE_USERDATA, b""),
    )


def delete_empty(family: int, table: str, names: Iterable[str], *, table_too: bool) -> None:
    """Delete those base chains that hold nothing and accept, then the table if nothing is left in it.

    The kernel does it only if nobody has changed anything since they were looked at.
    """
    for _ in range(TRIES):
        generation = _generation()
        there = chains(family, table)
        empty = [
            chain.name
            for chain in there
            if chain.name in set(names) and chain.is_base and chain.accepts and not has_rules(family, table, chain.name)
        ]
        orders = [(NFT_MSG_DELCHAIN, _named(NFTA_CHAIN_TABLE, table) + _named(NFTA_CHAIN_NAME, name)) for name in empty]
        if table_too and len(empty) == len(there) == _in_use(family, table):
            orders.append((NFT_MSG_DELTABLE, _named(NFTA_TABLE_NAME, table)))
        if not orders or _done(generation, family, orders):
            return


def _done(generation: int, family: int, orders: list[tuple[int, bytes]]) -> bool:
    """One transaction; False when it came too late."""
    head = HEAD.pack(0, 0, socket.htons(NFNL_SUBSYS_NFTABLES))
    batch = message(NFNL_MSG_BATCH_BEGIN, head + attribute(NFNL_BATCH_GENID, NUMBER.pack(generation)), NLM_F_REQUEST)
    for number, (kind, body) in enumerate(orders, 1):
        batch += message(_type(kind), HEAD.pack(family, 0, 0) + body, NLM_F_REQUEST | NLM_F_ACK, number)
    batch += message(NFNL_MSG_BATCH_END, head, NLM_F_REQUEST)
    with opened(NETLINK_NETFILTER) as netlink:
        netlink.send(batch)
        answered = 0
        while answered < len(orders):
            for answer in parse_messages(netlink.recv(BUFFER_BYTES)):
                error = -struct.unpack_from("=i", answer.body)[0] if answer.type == NLMSG_ERROR else 0
                if error == errno.ERESTART:
                    return False
                if error:
                    raise OSError(error, "nf_tables refused to delete what is empty")
                answered += 1
    return True


def _in_use(family: int, table: str) -> int:
    """How many chains, sets, maps and other objects a table holds."""
    answers = _listed(NFT_MSG_GETTABLE, family, b"")
    uses = [_parts(answer).get(NFTA_TABLE_USE, b"") for answer in answers if _table_of(answer) == (family, table)]
    return int(NUMBER.unpack(uses[0])[0]) if uses and len(uses[0]) == NUMBER.size else 0


def _table_of(answer: Message) -> Table:
    return Table(answer.body[0], text_of(_parts(answer).get(NFTA_TABLE_NAME, b"")))


def _generation() -> int:
    """A number that grows with every change."""
    with opened(NETLINK_NETFILTER) as netlink:
        answers = order(netlink, _type(NFT_MSG_GETGEN), HEAD.pack(0, 0, 0))
    return int(NUMBER.unpack(_parts(answers[0])[NFTA_GEN_ID])[0])


def _listed(kind: int, family: int, body: bytes) -> list[Message]:
    try:
        with opened(NETLINK_NETFILTER) as netlink:
            return dump(netlink, _type(kind), HEAD.pack(family, 0, 0) + body)
    except OSError as error:
        if error.errno in ABSENT:
            return []
        raise


def _type(kind: int) -> int:
    return NFNL_SUBSYS_NFTABLES << 8 | kind


def _parts(answer: Message) -> dict[int, bytes]:
    return attributes(answer.body[HEAD.size :])


def _name(name: str) -> bytes:
    return name.encode() + b"\0"


def _named(kind: int, name: str) -> bytes:
    return attribute(kind, _name(name))
