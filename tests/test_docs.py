"""The pages say what is there: links lead somewhere, examples are those that run, names can be imported."""

import re
from pathlib import Path

import pytest

import perceiver_trainer

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
EXAMPLES = REPOSITORY / "examples"
PLUGINS = [*sorted((EXAMPLES / "plugins").glob("*.py")), EXAMPLES / "networks" / "resnet.py"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_index_leads_to_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    assert [page.name for page in DOCS.glob("*.md") if page.name != "README.md" and f"({page.name})" not in index] == []


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_the_page_on_extending_shows_each_plugin_as_it_is_tested(path: Path) -> None:
    assert f"```python\n{path.read_text()}```\n" in (DOCS / "extending.md").read_text()


@pytest.mark.parametrize("page", ["library.md", "extending.md"])
def test_what_the_pages_import_is_there(page: str) -> None:
    imports = re.findall(r"^from perceiver_trainer import (.*)$", (DOCS / page).read_text(), re.MULTILINE)
    names = {name.strip() for line in imports for name in line.split(",")}
    assert names
    assert names <= set(perceiver_trainer.__all__)


def test_the_glossary_has_at_most_thirty_words_of_one_sentence_each() -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \|$", (DOCS / "glossary.md").read_text(), re.MULTILINE)[1:]
    assert 10 < len(rows) <= 30
    assert len({word for word, _ in rows}) == len(rows)
    assert [meaning for _, meaning in rows if not re.fullmatch(r"[A-Z].*[^.]\.", meaning)] == []
