"""The figures in README.md: the same as on docs/performance.md, whichever run both are from."""

import re
from pathlib import Path

import pytest

from benchmarks.page import PAGE, README, main, write
from benchmarks.readme import BEGIN, COLUMNS, END, ROWS, block
from benchmarks.shown import NONE, family, family_title, figure_title, workload_title
from sidecar.errors import RelayError
from tests.unit.benchmarks.runs import made, noisy, plain, written

EMPTY = f"# A relay\n\n{BEGIN}\n{END}\n\nMore.\n"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def tables(text: str) -> list[list[list[str]]]:
    """Each as its lines of cells, without the one below the head."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.M)
    return [[cells(line) for number, line in enumerate(each.splitlines()) if number != 1] for each in found]


def on_page(page: str, workload: str, figure: str) -> dict[str, str]:
    """The middle of each peer's cell."""
    section = page.partition(f"\n## {family_title(family(workload))}\n")[2].partition("\n## ")[0]
    (lines,) = [each for each in tables(section) if each[0][0] == figure_title(figure)]
    column = lines[0].index(workload_title(workload))
    return {line[0]: line[column].partition(" ")[0] for line in lines[1:]}


def in_readme(readme: str) -> dict[str, dict[str, str]]:
    """The cells of each row, by peer."""
    ((head, *lines),) = tables(readme.partition(BEGIN)[2].partition(END)[0])
    columns = [re.sub(r" \d+\.\d+$", "", name) for name in head[1:]]
    names = {name: peer for peer, name in COLUMNS.items()}
    return {line[0]: {names[name]: cell for name, cell in zip(columns, line[1:], strict=True)} for line in lines}


def agree(readme: str, page: str) -> None:
    found = in_readme(readme)
    assert list(found) == [title for title, _, _ in ROWS]
    for title, workload, figure in ROWS:
        told = on_page(page, workload, figure)
        assert found[title] == {peer: told.get(peer, NONE) for peer in found[title]}, title


def test_the_figures_of_the_readme_are_those_of_the_page() -> None:
    """A reader would find one figure here and another one there."""
    agree(README.read_text(), PAGE.read_text())
    assert list(in_readme(README.read_text())[ROWS[0][0]]) == list(COLUMNS)


def test_a_run_writes_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page would move on, and the README stay behind."""
    page, readme = tmp_path / "performance.md", tmp_path / "README.md"
    readme.write_text(EMPTY)
    for seed in (1, 2):
        run = written(tmp_path / "run.json", noisy(seed, 0.3))
        assert main((str(run), "--page", str(page), "--readme", str(readme))) == 0
        assert str(readme) in capsys.readouterr().out.splitlines()
        text = readme.read_text()
        agree(text, page.read_text())
        assert re.sub(f"{BEGIN}\n.*{END}", f"{BEGIN}\n{END}", text, flags=re.S) == EMPTY


def test_another_page_leaves_the_readme_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever only looks at a run would change what everybody reads; whoever writes the page would forget the README."""
    readme = tmp_path / "README.md"
    readme.write_text(EMPTY)
    monkeypatch.setattr("benchmarks.page.README", readme)
    monkeypatch.setattr("benchmarks.page.PAGE", tmp_path / "performance.md")
    run = str(written(tmp_path / "run.json", plain))
    assert main((run, "--page", str(tmp_path / "other.md"))) == 0
    assert readme.read_text() == EMPTY
    assert main((run,)) == 0
    agree(readme.read_text(), (tmp_path / "performance.md").read_text())


@pytest.mark.parametrize("spoilt", [EMPTY.replace(BEGIN, ""), EMPTY.replace(END, ""), EMPTY * 2, "# A relay\n"])
def test_a_readme_that_lost_a_marker_is_not_written_over(spoilt: str, tmp_path: Path) -> None:
    """Half of the README would be taken for figures, or the new ones be nowhere, unsaid."""
    page, readme = tmp_path / "performance.md", tmp_path / "README.md"
    readme.write_text(spoilt)
    with pytest.raises(RelayError, match="put them back"):
        write(made(tmp_path), page, readme)
    assert readme.read_text() == spoilt
    assert not page.exists()


def test_what_was_not_measured_is_no_figure(tmp_path: Path) -> None:
    """A relay that was not there would be shown with somebody else's figures."""
    found = in_readme(f"{BEGIN}\n{block(made(tmp_path, workloads=('churn-64',), missing={'nginx': 'get it'}))}\n{END}")
    assert {cell for title, row in found.items() for cell in row.values() if not title.startswith("connect")} == {NONE}
    (churn,) = [row for title, row in found.items() if title.startswith("connect")]
    assert churn == {"relay-sidecar": "100", "haproxy": "100", "haproxy-tuned": "100", "direct": NONE}
