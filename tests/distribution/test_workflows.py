"""The workflow files build, test and publish the right files, as far as this can be checked without running them."""

import json
import os
import re
import tomllib
from itertools import product
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))
CI, RELEASE = (yaml.safe_load((FOLDER / name).read_text()) for name in ("ci.yml", "release.yml"))
JOBS = RELEASE["jobs"]
PLATFORMS = {
    *(f"{libc}-{target}" for libc in ("manylinux", "musllinux") for target in ("x86_64", "aarch64", "armv7", "riscv64")),
    "macos-x86_64",
    "macos-aarch64",
    "windows-x64",
    "windows-aarch64",
}


def steps_of(workflow):
    return [(name, step) for name, job in workflow["jobs"].items() for step in job["steps"]]


def matrix(job):
    return JOBS[job]["strategy"]["matrix"]


def platforms_built():
    linux = matrix("linux")
    # Rows of `include` that name a target extend it, and do not add one.
    assert {row["target"] for row in linux["include"]} <= set(linux["target"])
    return {f"{libc}-{target}" for libc, target in product(linux["libc"], linux["target"])} | {
        f"{row['os']}-{row['target']}" for row in matrix("desktop")["include"]
    }


def python_lists():
    """Yield each list of Python versions in the workflows."""
    yield RELEASE["env"]["PYTHONS"].split()
    for job in ("try", "try-in-a-container"):
        yield matrix(job)["python"]
    for workflow in (CI, RELEASE):
        for _, step in steps_of(workflow):
            wanted = step.get("with", {}).get("python-version", "")
            if not wanted.startswith("$"):
                yield wanted.split()


def by_number(versions):
    """Return versions in ascending order, without the free-threaded ones."""
    return sorted((one for one in versions if not one.endswith("t")), key=lambda version: int(version.partition(".")[2]))


def test_there_are_three_workflows():
    assert [path.name for path in FILES] == ["ci.yml", "docs.yml", "release.yml"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_workflow_states_that_it_was_never_run(path):
    assert path.read_text().startswith("# Was never run")


def test_every_platform_is_built():
    assert platforms_built() == PLATFORMS


def test_every_platform_is_tested():
    jobs = [matrix(job) for job in ("try", "try-in-a-container")]
    assert {dist for job in jobs for dist in job["dist"]} == PLATFORMS
    for job in jobs:
        # A row of `include` extends the row with the same name.
        assert [row["dist"] for row in job["include"]] == job["dist"]


def test_every_published_file_is_checked():
    for job in ("sdist", "linux", "desktop"):
        commands = [step["run"] for step in JOBS[job]["steps"] if "contents.py" in step.get("run", "")]
        assert len(commands) == 1


def test_all_lists_of_python_versions_agree():
    lists = [by_number(versions) for versions in python_lists() if versions]
    assert len(lists) == 5
    assert all(versions == lists[0] for versions in lists)
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    named = [match[1] for classifier in classifiers if (match := re.fullmatch(r".* :: Python :: (3\.\d+)", classifier))]
    assert named
    assert lists[0][: len(named)] == by_number(named)


def test_free_threaded_versions_are_built_and_tested_alike():
    free_threaded = [version for version in RELEASE["env"]["PYTHONS"].split() if version.endswith("t")]
    assert free_threaded == ["3.14t", "3.15t"]
    assert [version for version in matrix("try")["python"] if version.endswith("t")] == free_threaded
    [installed] = [step["with"]["python-version"] for step in JOBS["desktop"]["steps"] if "python-version" in step.get("with", {})]
    assert installed.split() == RELEASE["env"]["PYTHONS"].split()


def test_actions_are_pinned_to_a_commit_with_its_version():
    lines = [line.strip() for path in FILES for line in path.read_text().splitlines() if re.search(r"\buses:", line)]
    assert len(lines) > 10
    pinned = [re.fullmatch(r"(?:- )?uses: ([\w.-]+/[\w.-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line) for line in lines]
    assert [line for line, match in zip(lines, pinned, strict=True) if match is None] == []
    # Each action has the same version everywhere.
    assert len({match.groups() for match in pinned}) == len({match[1] for match in pinned})


def test_only_a_tag_publishes_and_only_tested_files():
    publish = JOBS["publish"]
    assert publish["if"] == "github.ref_type == 'tag'"
    assert set(publish["needs"]) == {"sdist", "try", "try-in-a-container"}
    assert publish["environment"] == "release"
    # Trusted publishing needs no password, and the action's default address is used.
    last = publish["steps"][-1]
    assert last.keys() == {"uses"}
    assert last["uses"].startswith("pypa/gh-action-pypi-publish@")
    writers = {name for name, job in JOBS.items() if "write" in job.get("permissions", {}).values()}
    assert writers == {"publish"}
    assert "secrets." not in (FOLDER / "release.yml").read_text()


def test_published_pages_are_those_of_make_docs():
    docs = yaml.safe_load((FOLDER / "docs.yml").read_text())["jobs"]
    commands = [step.get("run") for step in docs["build"]["steps"]]
    assert "make docs" in commands
    makefile = (ROOT / "Makefile").read_text()
    [upload] = [step["with"]["path"] for step in docs["build"]["steps"] if "upload-pages" in step.get("uses", "")]
    assert f"-c docs . {upload}\n" in makefile
    assert "pages" not in docs["build"]["permissions"]


def test_ci_runs_the_common_script():
    [job] = CI["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_ci_counts_the_instructions_of_a_known_toolchain():
    """`make counts` fails in CI without figures for its compiler and its `python3`, so a change of one needs new figures."""
    assert "make counts" in (ROOT / ".ci" / "run").read_text().splitlines()
    [job] = CI["jobs"].values()
    [pythons] = [step["with"]["python-version"] for step in job["steps"] if "python-version" in step.get("with", {})]
    [rust] = [step["run"] for step in job["steps"] if step.get("name") == "Rust"]
    [compiler] = set(re.findall(r"\b\d+\.\d+\.\d+\b", rust))
    stored = [one["toolchain"] for one in json.loads((ROOT / "benches" / "counts.json").read_text())]
    assert {"rustc": compiler, "python": pythons.split()[-1], "machine": "x86_64", "flags": ""} in stored


@pytest.mark.parametrize("path", [*FILES, ROOT / "docs" / "packaging.md"], ids=lambda path: path.name)
def test_workflows_name_no_host(path):
    assert re.findall(r"\w+://|\b[\w-]+\.(?:org|com|net|io|dev)\b", path.read_text()) == []
