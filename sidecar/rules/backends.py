"""The programs as back ends: read what is ours, put something else in its place. Each change is a transaction of the kernel.

Owns: which program is asked for what. Every back end has the same methods, and `change` knows no other difference.
Never here: the spelling of a plan (nft, iptables); routes (routes); the order of a whole change (change).
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from typing import Protocol

from sidecar.errors import RelayError
from sidecar.rules import iptables, nft, tables
from sidecar.rules.held import EMPTY, SPOILT, Holding, Line
from sidecar.rules.model import PREFIX, TABLE, V4, V6, Plan
from sidecar.rules.programs import NEEDS_LEGACY, holds, missing, path_of, run

LOCK_SECONDS = "5"  # how long iptables waits for another iptables
NFPROTO = {"ip": 2, "ip6": 10}
NFPROTO_INET = 1
BUILTIN_TABLES = ("filter", "nat", "mangle", "raw", "security")  # of iptables-nft
LEGACY_TABLES = {V4: "/proc/self/net/ip_tables_names", V6: "/proc/self/net/ip6_tables_names"}


class Backend(Protocol):
    """One way to tell the kernel."""

    name: str  # nft | iptables-nft | iptables-legacy
    kind: str  # of the plan: nft | iptables

    def held(self) -> Holding:
        """What is there now."""

    def rendered(self, plan: Plan) -> Holding:
        """What would be there."""

    def try_out(self, wanted: Holding) -> None:
        """Ask the kernel whether it would take this; RelayError if not."""

    def put(self, wanted: Holding) -> None:
        """Replace what is there."""


class Nft:
    """One table, replaced in one transaction."""

    name = kind = "nft"

    def held(self) -> Holding:
        if (NFPROTO_INET, TABLE) not in {tuple(table) for table in tables.tables()}:
            return EMPTY
        return nft.read(run("nft", ["list", "table", "inet", TABLE]))

    def rendered(self, plan: Plan) -> Holding:
        return holding(nft.render(plan), plan.digest())

    def try_out(self, wanted: Holding) -> None:
        run("nft", ["-c", "-f", "-"], nft.script(wanted.texts(), wanted.digest))

    def put(self, wanted: Holding) -> None:
        run("nft", ["-f", "-"], nft.script(wanted.texts(), wanted.digest))


class Iptables:
    """Chains of our own in the tables of all, one transaction for each family."""

    kind = "iptables"

    def __init__(self, variant: str) -> None:
        self.name = f"iptables-{variant}"
        self.legacy = variant == "legacy"

    def held(self) -> Holding:
        places: dict[str, tuple[Line, ...]] = {}
        digests = set()
        made = {}
        for family, table in product(iptables.FAMILIES, iptables.TABLES):
            where = f"{iptables.FAMILIES[family]} {table}"
            found = self._chains(family, table)
            if not any(chain.startswith(PREFIX) for chain in found):
                continue
            digests |= set() if iptables.RECORD in found else {""}
            for chain in found:
                lines = iptables.read(self._run(family, "", ["-t", table, "-S", chain, "-v"]))
                if chain == iptables.RECORD:
                    digest, made[where] = iptables.read_record(lines[0].text if lines else "")
                    digests.add(digest)
                elif chain.startswith(PREFIX):
                    places[f"{where} {chain}"] = tuple(lines)
                elif ours := tuple(line for line in lines if re.search(rf"-[jg] {PREFIX}", line.text)):
                    places[f"{where} {chain}"] = ours
        return Holding(places, digests.pop() if len(digests) == 1 else SPOILT if digests else "", made)

    def rendered(self, plan: Plan) -> Holding:
        return holding(iptables.render(plan), plan.digest())

    def try_out(self, wanted: Holding) -> None:
        for family, text in iptables.scripts(wanted.texts(), wanted.digest).items():
            self._run(family, "-restore", ["-w", LOCK_SECONDS, "--noflush", "--test"], text)

    def put(self, wanted: Holding) -> None:
        present = self.held()
        for family, text in self._scripts(present, wanted).items():
            self._run(family, "-restore", ["-w", LOCK_SECONDS, "--noflush"], text)
        for where, made in present.made.items():
            if not iptables.inside(wanted.texts(), where):
                _tidy(where, made)

    def _scripts(self, present: Holding, wanted: Holding) -> dict[int, str]:
        """What to tell each family, that has anything of ours or is to have it."""
        scripts = {}
        for family in iptables.FAMILIES:
            parts = []
            for table in iptables.TABLES:
                where = f"{iptables.FAMILIES[family]} {table}"
                before, after = iptables.inside(present.texts(), where), iptables.inside(wanted.texts(), where)
                if before or after:
                    record = iptables.record_of(wanted.digest, self._made(family, table, present, after)) if after else ""
                    parts.append(iptables.script(table, before, after, record))
            if parts:
                scripts[family] = "".join(parts)
        return scripts

    def _made(self, family: int, table: str, present: Holding, after: iptables.Places) -> list[str]:
        """What of the table others have not brought here: found missing now, or made by an earlier apply."""
        if self.legacy:
            return []  # a table of iptables-legacy cannot be taken away again
        found = self._chains(family, table)
        earlier = present.made.get(f"{iptables.FAMILIES[family]} {table}", ())
        bases = [chain for chain in after if not chain.startswith(PREFIX) and chain not in found]
        return sorted({*earlier, *bases, *([] if self._has_table(family, table) else ["table"])})

    def _has_table(self, family: int, table: str) -> bool:
        return (NFPROTO[iptables.FAMILIES[family]], table) in {tuple(entry) for entry in tables.tables()}

    def _chains(self, family: int, table: str) -> list[str]:
        """The chains that are there; looking makes none."""
        if not self.legacy:
            if not self._has_table(family, table):
                return []
            return tables.existing(NFPROTO[iptables.FAMILIES[family]], table, iptables.KNOWN_CHAINS)
        if table not in _legacy_tables(family):
            return []
        listing = self._run(family, "", ["-t", table, "-S"]).splitlines()
        return [line.split()[1] for line in listing if line.startswith(("-P ", "-N "))]

    def _run(self, family: int, what: str, arguments: Sequence[str], stdin: str = "") -> str:
        return run(program(family, self.name.removeprefix("iptables-"), what), arguments, stdin)


def _tidy(where: str, made: Sequence[str]) -> None:
    """Take away what apply had to make in a table, as far as it is empty."""
    family, table = where.split()
    tables.delete_empty(NFPROTO[family], table, [name for name in made if name != "table"], table_too="table" in made)


BACKENDS: Mapping[str, Backend] = {backend.name: backend for backend in (Nft(), Iptables("nft"), Iptables("legacy"))}


def choose(wanted: str) -> Backend:
    """The back end for rules.backend; of the two variants of iptables the one that already holds rules, anybody's."""
    if wanted == "auto":
        wanted = "nft" if path_of("nft") else "iptables"
    if wanted == "nft":
        if not path_of("nft"):
            raise missing("nft")
        return BACKENDS["nft"]
    if wanted == "iptables-legacy":
        program(V4, "legacy", "-restore")
        return BACKENDS["iptables-legacy"]
    here = [variant for variant in ("nft", "legacy") if _has_program(variant)]
    if not here:
        raise missing("iptables")
    used = [variant for variant in here if _holds_rules(variant)]
    return BACKENDS[f"iptables-{(used or here)[0]}"]


def _has_program(variant: str) -> bool:
    try:
        program(V4, variant, "-restore")
    except RelayError:
        return False
    return True


def _holds_rules(variant: str) -> bool:
    if variant == "legacy":
        listings = [
            run(program(family, "legacy", ""), ["-t", table, "-S"]) for family in (V4, V6) for table in _legacy_tables(family)
        ]
        return any(line.startswith("-A ") for listing in listings for line in listing.splitlines())
    return any(
        tables.has_rules(family, table)
        for family, table in tables.tables()
        if family in NFPROTO.values() and table in BUILTIN_TABLES
    )


def holding(places: Mapping[str, Sequence[str]], digest: str) -> Holding:
    """What a rendered plan comes to."""
    return Holding({place: tuple(map(Line, lines)) for place, lines in places.items()}, digest)


def program(family: int, variant: str, what: str) -> str:
    """iptables-nft, or iptables where that is the same; `what` is "" or "-restore". RelayError when there is none."""
    base = {V4: "iptables", V6: "ip6tables"}[family]
    special = f"{base}-{variant}{what}"
    if path_of(special):
        return special
    if path_of(f"{base}{what}") and variant_of(base) == variant:
        return f"{base}{what}"
    raise missing(special)


@cache
def variant_of(base: str) -> str:
    """Which of the two `iptables` is here."""
    return "nft" if "nf_tables" in run(base, ["--version"]) else "legacy"


def _legacy_tables(family: int) -> list[str]:
    """The tables of iptables-legacy that this namespace has; naming another one would make it.

    Root alone may read their names. Whoever else holds what iptables-legacy takes looks into those that may be ours.
    """
    try:
        with open(LEGACY_TABLES[family], encoding="ascii") as file:
            return file.read().split()
    except PermissionError:
        return list(iptables.TABLES) if holds(NEEDS_LEGACY) and _has_program("legacy") else []
    except OSError:
        return []
