"""What the pages under docs/ say about options, tests and files is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def help_of(*words):
    done = subprocess.run(
        [sys.executable, "-m", "pyrtc.cli.main", *words, "--help"], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "ps",
        "stop",
        "rm",
        "cp",
        "inspect",
        "stats",
        "update",
        "events",
        "images",
        "load",
        "save",
        "tag",
        "import",
        "rmi",
        "network create",
        "network connect",
    ],
)
def test_every_option_is_documented(command):
    page = (ROOT / "docs/cli.md").read_text()
    text = help_of(*command.split())
    options = re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", text, re.MULTILINE)
    assert options
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", page))
    # The tables of the smaller commands show short forms only.
    short = {long: letter for letter, long in re.findall(r"^ +(-\w), (--[a-z-]+)", text, re.MULTILINE)}
    missing = [option for option in options if option not in known and short.get(option) not in known]
    assert set(missing) <= {"--help"}


def test_every_command_is_documented():
    page = (ROOT / "docs/cli.md").read_text()
    commands = re.findall(r"^  ([a-z]+) +[A-Z]", help_of("help"), re.MULTILINE)
    assert {"run", "load"} <= set(commands)
    assert [name for name in commands if name not in {"help", "version"} and f"pyrtc {name}" not in page] == []


def test_tests_that_are_named_exist():
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text()))
    assert len(named) > 20
    assert [name for name in named if f"def {name}(" not in sources] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_files_that_are_named_exist():
    text = (ROOT / "docs/security.md").read_text() + (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"(?:csrc|unit|kernel|tests|runtime|image|store)/[\w/]+\.(?:py|[ch])\b", text))
    places = (ROOT, ROOT / "pyrtc", ROOT / "tests")
    assert len(named) > 20
    assert [name for name in sorted(named) if not any((place / name).exists() for place in places)] == []
