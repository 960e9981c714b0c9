"""What earlier proxies of this kind got wrong in their rules, as far as it is seen in what a command leaves behind.

The rest of their errors are in test_seed_errors.
"""

import re

from tests.support import foreign
from tests.support.foreign import snapshot
from tests.support.relay import UID
from tests.support.rule_commands import Pod, backends, captures


@captures
@backends
def test_output_has_no_tproxy(pod: Pod, backend: str, capture: str) -> None:
    """1: the kernel refuses TPROXY in OUTPUT; a mark and a route to lo bring the packets to PREROUTING."""
    pod.configure(capture, backend)
    shown = pod.run("show", "--format", "nft" if backend == "nft" else "iptables").stdout
    output = re.findall(r"^-A RELAY_OUT.*|chain \w+_output \{[^}]*\n\t\}", shown, re.M | re.S if backend == "nft" else re.M)
    assert output
    assert not any(re.search("tproxy to|TPROXY", line) for line in output)


@captures
@backends
def test_the_relay_is_left_out_by_mark_user_and_group(pod: Pod, backend: str, capture: str) -> None:
    """6: rules without an exclusion of the relay loop for ever; 7: by numbers, for a name means another user elsewhere."""
    pod.configure(capture, backend)
    shown = pod.run("show", "--format", "nft" if backend == "nft" else "iptables").stdout
    spelled = ("meta mark & 0xfff == 0x539", f"meta skuid {UID} ", f"meta skgid {UID} ")
    if backend != "nft":
        spelled = ("--mark 0x539/0xfff", f"--uid-owner {UID} ", f"--gid-owner {UID} ")
    assert [words for words in spelled if words not in shown] == []


@captures
@backends
def test_no_policy_is_opened_and_nothing_doubled(pod: Pod, backend: str, capture: str) -> None:
    """7: a restore without --noflush, a flush of nat, an ACCEPT policy or a second -A: a firewall that is gone."""
    foreign.by_all(pod.namespace)
    before = snapshot(pod.namespace)
    pod.configure(capture, backend)
    pod.run("apply")
    once = snapshot(pod.namespace)
    pod.run("apply")
    assert snapshot(pod.namespace) == once
    for name in ("iptables-nft", "iptables-legacy"):
        assert set(re.findall(r":\w+ DROP", before[name])) == set(re.findall(r":\w+ DROP", once[name])) != set()
        assert [line for line in before[name].splitlines() if line not in once[name]] == []


@captures
@backends
def test_no_sysctl_is_needed(pod: Pod, backend: str, capture: str) -> None:
    """10: forwarding that nobody asked for makes a router of a machine."""
    before = {name: value for name, value in snapshot(pod.namespace).items() if name.startswith("net/")}
    assert before["net/ipv4/ip_forward"] == "0\n"
    pod.configure(capture, backend)
    pod.run("apply")
    assert {name: value for name, value in snapshot(pod.namespace).items() if name.startswith("net/")} == before
