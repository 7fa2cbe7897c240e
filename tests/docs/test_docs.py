"""What the documents say: links that lead somewhere, names that exist, first lines that run."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from outbox.config import load_config
from outbox.errors import ConfigError
from outbox_sql.audit import load, names
from tests.docs.api_page import PAGE, api_page
from tests.postgres import Database

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "sql/**/*.md", "examples/*.md", "bench/*.md")
    for path in ROOT.glob(pattern)
)


def code_blocks(language: str) -> Iterator[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return (m[1] for m in re.finditer(rf"^```{language}\n(.*?)^```", readme, re.M | re.S))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_named_files_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = set(re.findall(r"\]\((?!https?:|#)([^)#]+)", text))
    links |= {f"/{name}" for name in re.findall(r"\bdocs/[\w/.-]+\.md\b", text)}
    for link in links:
        place = ROOT / link[1:] if link.startswith("/") else path.parent / link
        assert place.exists(), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_that_are_named_exist(path: Path) -> None:
    """`load_config` passes over tests' and Kubernetes' own names, and knows plugins'."""
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![A-Z_])OUTBOX_(?!BENCH_)[A-Z0-9_]+(?![A-Z0-9_<{…])", text))
    faults = []
    for name in named:
        if not name.endswith("_"):
            try:
                load_config({name: "/dev/null"})
            except ConfigError as error:
                faults.append(str(error))
    assert [fault for fault in faults if "is no setting" in fault] == []


def test_sql_that_points_to_a_document_points_to_one_that_is_there() -> None:
    for path in (ROOT / "sql").rglob("*.sql"):
        for name in re.findall(r"\bdocs/[\w/-]+(?:\.md)?", path.read_text(encoding="utf-8")):
            assert list(ROOT.glob(name if name.endswith(".md") else f"{name}*")), (path, name)


def test_every_test_that_holds_an_invariant_is_there() -> None:
    text = (ROOT / "sql/outbox_sql/README.md").read_text(encoding="utf-8")
    wanted = set(re.findall(r"\btest_[a-z0-9_]+\b(?!\.py)", text))
    written = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8"))
    }
    assert len(wanted) > 20
    assert wanted - written == set()
    for name in re.findall(r"\btests/[\w/]+\.py\b", text):
        assert (ROOT / name).exists(), name


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = [
        *project["project"]["dependencies"],
        *(
            line
            for extra in project["project"]["optional-dependencies"].values()
            for line in extra
        ),
    ]
    packages = {re.split(r"[\[<>=]", line)[0] for line in listed} - {"outbox"}
    told = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    assert {name for name in packages if not re.search(rf"\b{name}\b", told)} == set()


def test_every_audit_query_is_told_with_its_parameters() -> None:
    told = (ROOT / "docs/audit.md").read_text(encoding="utf-8")
    for name in names():
        parameters = ", ".join(f"`{p.name}`" for p in load(name).parameters)
        assert re.search(rf"^\| `{name}` \|.*\| {re.escape(parameters)} \|$", told, re.M), name


@pytest.fixture
def shop(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A database in which a producer has a table of its own, and a template is there."""
    with database.admin_connect(autocommit=True) as admin:
        admin.execute("create table public.customer (name text)")
        admin.execute("grant insert, select on public.customer to public")
        admin.execute(
            "insert into outbox.template (tenant_id, code, channel, locale, version, body_text)"
            " values ('default', 'welcome_email', 'email', 'ru', 1, 'Здравствуйте')"
        )
        yield admin


def test_the_readme_s_first_lines_of_python_hand_a_job_over(
    database: Database, shop: psycopg.Connection[tuple[object, ...]]
) -> None:
    (code,) = code_blocks("python")
    exec(code.replace("postgresql://shop@db/app", database.url), {})
    assert shop.execute("select status, template_code from outbox.notification").fetchall() == [
        ("pending", "welcome_email")
    ]
    assert shop.execute("select name from customer").fetchall() == [("Нуржан",)]


def test_the_readme_s_first_lines_of_sql_hand_a_job_over(
    database: Database, shop: psycopg.Connection[tuple[object, ...]]
) -> None:
    (code,) = code_blocks("sql")
    with psycopg.connect(database.url, autocommit=True) as producer:
        producer.execute("set role outbox_producer")
        producer.execute(code.encode())
    assert shop.execute("select status, template_code from outbox.notification").fetchall() == [
        ("pending", "welcome_email")
    ]


def test_the_page_of_the_api_is_what_the_openapi_document_says() -> None:
    """After a change of a route: `make docs`."""
    assert PAGE.read_text(encoding="utf-8") == api_page()


def test_the_index_leads_to_every_document() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\((\w+\.md)\)", index))
    assert linked == {p.name for p in (ROOT / "docs").glob("*.md")} - {"README.md"}
