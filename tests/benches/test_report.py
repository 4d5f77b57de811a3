"""``benches/report.py`` prints the tables of the available results, and writes nothing unless all results are available."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
SIZES, RATES = (1, 10), (100, 1000)


@pytest.fixture(scope="module")
def rows():
    """Return the rows of the table, read in a separate process because the benchmarks are not on the path of the tests."""
    source = "import json, report; print(json.dumps([vars(row) for row in report.ROWS]))"
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT / "benches", capture_output=True, text=True, check=True)
    return [SimpleNamespace(**row) for row in json.loads(done.stdout)]


@pytest.fixture
def project(tmp_path):
    """Return a folder with copies of the files that the report reads and writes."""
    for path in ("benches/report.py", "benches/curves.py", "README.md", "docs/performance.md"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    return tmp_path


def benchmark(group, peer, **facts):
    return {
        "name": group,
        "group": group,
        "stats": {"median": 0.5},
        "extra_info": {"peer": peer, "correct": True, "cpu_seconds": 0.25} | facts,
    }


def everything(rows):
    # Several rows may compare one case with different peers.
    pairs = dict.fromkeys((row.case, peer) for row in rows for peer in ("native", row.peer) if peer is not None)
    found = [benchmark(case, peer, datapoints=1000) for case, peer in pairs]
    percentiles = {"50": 0.001, "99": 0.002}
    for peer in ("native", "by hand"):
        for kind in ("device", "gateway"):
            found += [benchmark(f"throughput, {kind}", peer, size=size, bytes=30, datapoints=1000) for size in SIZES]
        found.append(benchmark("latency, one send at a time", peer, percentiles=percentiles))
        found += [benchmark("latency at a rate", peer, rate=rate, percentiles=percentiles) for rate in RATES]
    return found


def report(project, benchmarks, *arguments):
    (project / "results.json").write_text(json.dumps({"benchmarks": benchmarks}))
    command = [sys.executable, "benches/report.py", "results.json", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


def documents(project):
    return [(project / path).read_text() for path in ("README.md", "docs/performance.md")]


def test_complete_results_are_printed_and_written_on_request(project, rows):
    before = documents(project)
    done = report(project, everything(rows))
    assert (done.returncode, done.stderr, documents(project)) == (0, "", before)
    assert "Not in these results" not in done.stdout
    assert all(f"| {row.case} |" in done.stdout for row in rows)
    assert report(project, everything(rows), "--write").returncode == 0
    assert documents(project) != before


def test_partial_results_print_partial_tables(project, rows):
    one = next(row for row in rows if row.peer is None)
    done = report(project, [benchmark(one.case, "native", value=12.5)])
    assert (done.returncode, done.stderr) == (0, "")
    assert f"| {one.case} |  | 12.50 {one.unit} |" in done.stdout
    assert done.stdout.count("\n| ") == 1
    assert "Not in these results:\n  " in done.stdout
    for line in ("throughput, device (native)", "latency at a rate (by hand)", f"{rows[0].case} (native)"):
        assert f"\n  {line}\n" in done.stdout + "\n"
    assert f"\n  {one.case}" not in done.stdout


def test_a_missing_peer_is_a_visible_failure_of_its_rows(project, rows):
    one = next(row for row in rows if row.peer == "SDK 1.13" and row.by is None)
    benchmarks = [found for found in everything(rows) if (found["group"], found["extra_info"]["peer"]) != (one.case, one.peer)]
    done = report(project, benchmarks, "--write")
    assert done.returncode == 1
    assert f"| {one.case} | `{one.peer}` | peer not measured | at least {one.target:g} | **missed** |" in done.stdout
    assert f"Not in these results:\n  {one.case} ({one.peer})\n" in done.stdout


def test_the_peer_that_needs_sources_may_be_missing(project, rows):
    optional = {(row.case, row.peer) for row in rows if row.optional}
    assert {peer for _, peer in optional} == {"SDK 2.0"}
    benchmarks = [found for found in everything(rows) if (found["group"], found["extra_info"]["peer"]) not in optional]
    done = report(project, benchmarks, "--write")
    assert (done.returncode, done.stderr) == (0, "")
    assert "SDK 2.0" not in done.stdout


def test_cpu_time_is_beside_the_ratio(project, rows):
    one = next(row for row in rows if row.by == "cpu_seconds")
    facts = {"datapoints": 1000, "calls": 100}
    pair = [benchmark(one.case, "native", **facts), benchmark(one.case, one.peer, **facts | {"cpu_seconds": 0.5})]
    done = report(project, pair)
    assert (
        f"| {one.case} | `{one.peer}` | 2.00 {one.unit} | at least {one.target:g} | **missed** | 250.0 us / 500.0 us |"
        in done.stdout
    )


def test_renamed_case_is_reported_and_nothing_is_written(project, rows):
    before = documents(project)
    benchmarks = everything(rows)
    renamed = benchmarks[0]["group"]
    benchmarks[0]["group"] = "a better name"
    done = report(project, benchmarks, "--write")
    assert (done.returncode, documents(project)) == (1, before)
    assert f"Not in these results:\n  {renamed} (native)\n" in done.stdout
    assert "ROWS in benches/report.py lacks them:\n  a better name (native)\n" in done.stdout
    assert "Nothing is written" in done.stderr
    assert "Traceback" not in done.stderr


def test_incomplete_curve_is_reported_and_not_drawn(project, rows):
    benchmarks = [
        one
        for one in everything(rows)
        if one["extra_info"] | {"rate": 1000} != one["extra_info"] or one["extra_info"]["peer"] == "native"
    ]
    done = report(project, benchmarks, "--write")
    assert done.returncode == 1
    assert "Not in these results:\n  latency at a rate (by hand, rate 1000)\n" in done.stdout


def test_every_case_of_the_table_has_a_benchmark(rows):
    """A case that is renamed in one place only would be missing after a run of many minutes."""
    sources = "".join(path.read_text() for path in (ROOT / "benches").glob("test_*.py"))
    assert [row.case for row in rows if f'"{row.case}"' not in sources] == []
