"""sidecar.rules.marks: marks of ours in rules of others."""

import pytest

from sidecar.rules import marks
from sidecar.rules.marks import clashes

OURS = {"mark": 0x539, "local_mark": 0x111, "capture_mark": 0x112}


def found(monkeypatch: pytest.MonkeyPatch, listing: str) -> set[str]:
    """The keys of the marks that clash with a ruleset."""
    monkeypatch.setattr(marks, "path_of", lambda program: "nft" if program == "nft" else None)
    monkeypatch.setattr(marks, "run", lambda *_, **__: listing)
    return {problem.where.removeprefix("rules.") for problem in clashes(OURS)}


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("meta mark set 0x00000539", {"mark"}),
        ("counter meta mark set mark or 0x539", {"mark"}),
        ("meta mark set mark and 0xfffff000 xor 0x111", {"local_mark"}),
        ("ct mark set ct mark & 0xfffff112 | 0x00000112", {"capture_mark"}),
        ("meta mark set 0x80539", {"mark"}),
        ("-A PREROUTING -j MARK --set-xmark 0x539/0xffffffff", {"mark"}),
        ("-A PREROUTING -j MARK --set-mark 0x112", {"capture_mark"}),
        ("meta mark & 0x00000f00 == 0x00000500 drop", {"mark"}),
        ("meta mark 0x00000111 accept", {"local_mark"}),
        ("-A OUTPUT -m mark --mark 0x110/0xff0 -j DROP", {"local_mark", "capture_mark"}),
        ("-A OUTPUT -m mark --mark 1337 -j DROP", {"mark"}),
        ("-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000", set()),
        ("-A POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN", set()),
        ("meta mark & 0x00ff0000 == 0x00040000 accept", set()),
        ("meta mark 0x00000000 accept", set()),
        ("tcp dport 1337 accept", set()),
        ('comment "mark my words 0x539"', set()),
    ],
)
def test_a_rule_of_others_clashes_when_it_gives_or_sees_our_marks(
    monkeypatch: pytest.MonkeyPatch, line: str, keys: set[str]
) -> None:
    """Others' packets would be taken for the relay's, or the relay's for theirs, and nobody would know why."""
    assert found(monkeypatch, f"table ip foo {{\n\tchain bar {{\n\t\t{line}\n\t}}\n}}\n") == keys


def test_our_own_rules_are_no_clash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second apply would be refused because of the first."""
    nft = "table inet relay_sidecar {\n\tchain a {\n\t\tmeta mark 0x539 return\n\t}\n}\n"
    iptables = (
        "table ip mangle {\n\tchain RELAY_IN {\n\t\tmeta mark 0x539 return\n\t}\n}\n-A RELAY_IN -m mark --mark 0x539/0xfff\n"
    )
    assert found(monkeypatch, nft + iptables) == set()
