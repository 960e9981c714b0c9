"""benchmarks.compare: a change is found, noise is not taken for one, and what the machine did is not held against the relay."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.bars import HIGHER_IS_BETTER, OURS
from benchmarks.compare import BETTER, NEITHER, WORSE, Comparison, compare, main
from benchmarks.statistics import load
from tests.unit.benchmarks.runs import Value, made, noisy, plain, written

ROOT = Path(__file__).parents[3]
SOME = ("bulk-down-1", "churn-64", "pingpong-64-32")
FEW = ("relay-sidecar", "haproxy", "nginx")
few = settings(deadline=None, max_examples=25)  # each writes two runs and reads them


def scaled(value: Value, factor: float, *peers: str, figure: str = "") -> Value:
    """The same, and what these peers have so many times as large."""

    def with_factor(workload: str, peer: str, what: str, number: int, standard: float) -> float:
        touched = (not peers or peer in peers) and figure in ("", what)
        return value(workload, peer, what, number, standard) * (factor if touched else 1)

    return with_factor


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of examples: hypothesis makes many in one test."""
    return tmp_path_factory.mktemp("runs")


def compared(folder: Path, before: Value, after: Value, rounds: int = 5, peers: tuple[str, ...] = FEW) -> Comparison:
    one, other = (made(folder, value, rounds, workloads=SOME, peers=peers) for value in (before, after))
    return compare(one, other)


@few
@given(seed=st.integers(0, 99), noise=st.floats(0, 0.5), rounds=st.integers(1, 9))
def test_a_run_beside_itself_is_neither(folder: Path, seed: int, noise: float, rounds: int) -> None:
    """A difference would be found where there is none."""
    value = noisy(seed, noise)
    found = compared(folder, value, value, rounds)
    assert {row.verdict for row in found.rows} == {NEITHER}
    assert all(row.change is None or row.change.middle == pytest.approx(1) for row in found.rows)


@few
@given(seed=st.integers(0, 99), rounds=st.integers(5, 9), peers=st.sampled_from([FEW, (OURS,)]))
def test_twice_as_much_is_found(folder: Path, seed: int, rounds: int, peers: tuple[str, ...]) -> None:
    """A change that costs half of the speed would land."""
    before, after = noisy(seed, 0.1), scaled(noisy(seed + 100, 0.1), 2, OURS)
    for row in compared(folder, before, after, rounds, peers).rows:
        assert row.verdict == (BETTER if row.figure in HIGHER_IS_BETTER else WORSE), row
    for row in compared(folder, after, before, rounds, peers).rows:
        assert row.verdict == (WORSE if row.figure in HIGHER_IS_BETTER else BETTER), row


@few
@given(seed=st.integers(0, 99), factor=st.floats(0.1, 10))
def test_another_day_of_the_machine_is_no_change(folder: Path, seed: int, factor: float) -> None:
    """Everything would be worse on a day on which the machine is slow, and better on the next."""
    found = compared(folder, noisy(seed), scaled(noisy(seed), factor))
    assert {row.verdict for row in found.rows} == {NEITHER}
    assert {tuple(row.against) for row in found.rows} == {("haproxy", "nginx")}


@few
@given(seed=st.integers(0, 99), more=st.floats(1, 10))
def test_more_noise_never_makes_a_comparison_surer(folder: Path, seed: int, more: float) -> None:
    """A change would be found on a busy machine, and not on a quiet one."""

    def with_noise(noise: float, factor: float) -> Value:
        # Rounds that are above and below alike, so that the noise itself favours neither run.
        return lambda _w, peer, _f, number, value: (
            value * (factor * (1 + seed / 1000 * noise) ** (number - 2) if peer == OURS else 1)
        )

    for factor in (0.5, 0.95, 1.2):
        quiet, loud = (compared(folder, with_noise(noise, 1), with_noise(noise, factor)) for noise in (1, more))
        for one, other in zip(quiet.rows, loud.rows, strict=True):
            assert other.verdict in (NEITHER, one.verdict)


def test_a_change_too_small_to_matter_is_none(folder: Path) -> None:
    """Whoever looks at fifty figures would find something in every run."""
    for factor in (1.029, 1 / 1.029):
        assert compared(folder, plain, scaled(plain, factor, OURS)).verdict == NEITHER
    assert compared(folder, plain, scaled(plain, 1 / 1.031, OURS, figure="cpu_us_per_request")).verdict == BETTER
    found = compared(folder, plain, scaled(plain, 1.031, OURS, figure="cpu_us_per_request"))
    assert [(row.workload, row.figure) for row in found.of(WORSE)] == [("pingpong-64-32", "cpu_us_per_request")]
    assert found.verdict == WORSE


def test_a_peer_that_changed_is_not_compared_with(folder: Path) -> None:
    """A newer HAProxy would make the relay look worse."""
    before = made(folder, plain, workloads=SOME, peers=FEW)
    text = json.loads(written(folder / "after.json", scaled(plain, 2, "haproxy"), workloads=SOME, peers=FEW).read_text())
    text["peers"]["haproxy"]["version"] = "2.0"
    (folder / "after.json").write_text(json.dumps(text))
    found = compare(before, load(folder / "after.json"))
    assert {tuple(row.against) for row in found.rows} == {("nginx",)}
    assert found.verdict == NEITHER


def test_a_peer_without_every_round_is_not_compared_with(folder: Path) -> None:
    """What a peer had in its good rounds would be held against all of ours."""

    def value(_workload: str, peer: str, _figure: str, number: int, standard: float) -> float:
        return 0.0 if (peer, number) == ("nginx", 3) else standard

    found = compared(folder, plain, value)
    assert {tuple(row.against) for row in found.rows} == {("haproxy",)}
    assert found.verdict == NEITHER


def test_ours_by_another_name_is_not_compared_with(folder: Path) -> None:
    """A change to the engine would be divided by itself, and never be found."""
    ours = (OURS, "relay-sidecar-log", "relay-sidecar-2", "engine")
    found = compared(folder, plain, scaled(plain, 1.5, *ours), peers=(*ours, "nginx"))
    assert {tuple(row.against) for row in found.rows} == {("nginx",)}
    assert found.verdict == WORSE


def test_programs_of_another_version_are_told(folder: Path) -> None:
    """A newer redis-server would make the relay look better."""
    before = made(folder, plain, workloads=SOME, peers=FEW)
    text = json.loads((folder / "run.json").read_text())
    text["programs"]["redis-benchmark"]["version"] = "redis-benchmark 2.0"
    (folder / "after.json").write_text(json.dumps(text))
    found = compare(before, load(folder / "after.json"))
    assert found.notes == ["redis-benchmark: before redis-benchmark 1.0, after redis-benchmark 2.0"]


def test_direct_is_compared_with_where_it_has_the_figure(folder: Path) -> None:
    """A relay that costs CPU would be divided by one that is none."""
    found = compared(folder, plain, plain, peers=("direct", "relay-sidecar"))
    against = {row.figure: row.against for row in found.rows}
    assert (against["gbit_s"], against["cpu_s_per_gb"]) == (["direct"], [])
    (note,) = found.notes
    assert note.startswith("no peer is the same in both runs")


# The command.


def changed(run: Path, **machine: object) -> None:
    text = json.loads(run.read_text())
    text["machine"] |= machine
    run.write_text(json.dumps(text))


def test_the_exit_status_and_the_last_line_tell_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A script would let a slower relay pass."""
    before, after = (
        str(written(tmp_path / f"{name}.json", value, workloads=SOME, peers=FEW))
        for name, value in (("before", plain), ("after", scaled(plain, 1.5, OURS, figure="cpu_us_per_request")))
    )
    told = []
    for runs in ((before, before), (before, after), (after, before)):
        status = main(runs)
        told.append((status, capsys.readouterr().out.splitlines()[-1]))
    assert told == [
        (0, "relay-sidecar: neither (0 worse, 0 better, 10 neither; intervals of 95 %)"),
        (1, "relay-sidecar: worse (1 worse, 0 better, 9 neither; intervals of 95 %)"),
        (0, "relay-sidecar: better (0 worse, 1 better, 9 neither; intervals of 95 %)"),
    ]
    assert main((before, after, "--peer", "nginx")) == 0
    assert main((before, after, "--least", "60")) == 0


def test_a_line_tells_figure_change_and_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reader would see that something is worse, and neither what nor by how much."""
    before = written(tmp_path / "before.json", plain, workloads=SOME, peers=FEW)
    after = written(
        tmp_path / "after.json", scaled(plain, 1.5, OURS, figure="cpu_us_per_request"), workloads=SOME[1:], peers=FEW
    )
    changed(after, kernel="6.19.0")
    main((str(before), str(after)))
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if line.endswith(WORSE)]
    assert " ".join(line.split()) == "pingpong-64-32 relay CPU, µs/request 15.0 22.5 +50.0 % +50.0 % and +50.0 % worse"
    assert "kernel of the machine: before 6.18.0, after 6.19.0\n" in shown
    assert "only before: bulk-down-1\n" in shown


def test_as_json_it_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program would have to read a table made for people."""
    before = str(written(tmp_path / "before.json", plain, workloads=SOME, peers=FEW))
    after = str(written(tmp_path / "after.json", scaled(plain, 2, OURS, figure="gbit_s"), workloads=SOME, peers=FEW))
    assert main((before, after, "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["peer"], told["level"], told["notes"]) == (BETTER, OURS, 0.95, [])
    (row,) = [row for row in told["rows"] if row["verdict"] == BETTER]
    assert (row["workload"], row["figure"], row["before"], row["after"]) == ("bulk-down-1", "gbit_s", 30, 60)
    assert row["change"] == pytest.approx({"low": 2, "middle": 2, "high": 2})
    assert row["against"] == ["haproxy", "nginx"]


def test_one_round_is_said_to_be_too_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Silence would be taken for `nothing changed`."""
    run = str(written(tmp_path / "run.json", plain, 1, workloads=("churn-1",), peers=FEW))
    assert main((run, run)) == 0
    assert capsys.readouterr().out.count("1 round in one of them says nothing") == 4


def test_nothing_to_compare_is_neither_better_nor_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A check of two empty runs would pass."""
    one, other = (str(written(tmp_path / f"{name}.json", plain, workloads=(name,))) for name in ("churn-1", "idle-9000"))
    assert main((one, other)) == 2
    assert capsys.readouterr().err.endswith("expected figures of relay-sidecar that both runs have, found none\n")
    assert main((one, str(tmp_path / "none.json"))) == 2
    assert "expected a run, format 1" in capsys.readouterr().err


def test_it_runs_from_anywhere(tmp_path: Path) -> None:
    """`benchmarks/compare` would work in one folder alone."""
    written(tmp_path / "run.json", plain, workloads=SOME, peers=FEW)
    environment = {**os.environ, "PYTHONPATH": ""}
    for place, run in ((tmp_path, "run.json"), (ROOT / "benchmarks", str(tmp_path / "run.json"))):
        argv = [str(ROOT / "benchmarks" / "compare"), run, run]
        done = subprocess.run(argv, cwd=place, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
