"""The shape of the code: layers, migrations, sizes, descriptions, the error table."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from api.cli.operator.settings_reference import settings_reference
from tests.support.platform import ROOT, clean_env
from worker.core.errors import ERRORS, Fault, Reaction
from worker.core.settings import Settings

MOST_LINES = 400
MOST_FUNCTION_LINES = 60
# The state machine is one file on purpose (I1), and its SQL is long.
LONGER = {"worker/db/jobs/state_machine.py": 640}
PRODUCT = [p for package in ("api", "worker") for p in sorted((ROOT / package).rglob("*.py"))]
NAMES = [str(p.relative_to(ROOT)) for p in PRODUCT]


def problems_of(path: Path) -> Iterator[str]:
    name, text = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    if name.endswith("__init__.py"):
        if text:
            yield "re-exports would hide imports from the linter"
        return
    tree = ast.parse(text)
    if not ast.get_docstring(tree):
        yield "a module docstring describes the contents"
    if text.count("\n") > LONGER.get(name, MOST_LINES):
        yield "too many lines"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MOST_FUNCTION_LINES:
                yield f"{node.name} has {length} lines"
    if found := re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text):
        yield f"a note instead of work: {found[0]}"
    if re.search(r"\b(utils|helpers|common|manager)\b", path.stem):
        yield "a name that says nothing"


def test_modules_have_docstrings_and_stay_short() -> None:
    """One test for all modules, because hundreds of tests take longer than their content."""
    found = {name: list(problems_of(path)) for name, path in zip(NAMES, PRODUCT, strict=True)}
    assert {name: problems for name, problems in found.items() if problems} == {}


# --- layers ---


def lint_imports(folder: Path) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--config", str(folder / "pyproject.toml"), "--no-cache"],
        cwd=folder,
        env={**clean_env(), "PYTHONPATH": str(folder), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def contracts() -> Iterator[str]:
    return iter(re.findall(r'^name = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE))


def test_import_contracts_are_kept() -> None:
    report = lint_imports(ROOT)
    for name in contracts():
        if name != "dreamery":
            assert f"{name} KEPT" in report, report
    assert " 0 broken" in report


# The file that gets a wrong import, that import, and the contract that must detect it.
PLANTED = [
    ("worker/core/ids.py", "import api.http.errors", "api is above worker"),
    ("worker/core/security/encryption.py", "import worker.db.users.users", "layers of worker"),
    ("worker/messaging/pubsub.py", "import worker.storage", "layers of worker"),
    ("api/http/responses.py", "import api.jobs.serialization", "features of api"),
    ("api/images/planning.py", "import api.videos.planning", "features of api"),
    ("worker/db/accounts/accounts.py", "import worker.db.jobs.state_machine", "features of worker.db"),
    ("api/generation/models/routes.py", "import worker.providers.registry", "api does not import providers or tasks"),
    ("worker/tasks/save.py", "import worker.tasks.poll", "tasks are independent"),
    ("worker/tasks/stages/claim.py", "import worker.tasks.submit", "tasks are independent"),
    ("worker/sandbox/responses.py", "import worker.core.ids", "sandbox imports nothing of ours"),
    ("worker/tasks/poll.py", "import worker.sandbox.options", "nothing imports the sandbox"),
    ("worker/providers/ark/http.py", "import worker.providers.dreamina.signing", "providers are independent"),
    ("worker/tasks/stages/orders/build_order.py", "import worker.providers.ark.models", "nothing imports a provider"),
    ("worker/tasks/deliver_webhooks.py", "import sqlalchemy", "sqlalchemy is used in worker.db only"),
    ("api/jobs/watcher.py", "import redis", "redis and celery are used in worker.messaging only"),
    ("worker/tasks/dispatch.py", "import httpx", "httpx is used in providers, safe_fetch and http_streams only"),
    ("worker/storage.py", "import fastapi", "fastapi is used in api only"),
]


def test_wrong_import_breaks_its_contract(tmp_path: Path) -> None:
    for package in ("api", "worker"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for place, line, _ in PLANTED:
        file = tmp_path / place
        text = file.read_text(encoding="utf-8")
        after_docstring = ast.parse(text).body[0].end_lineno or 0
        lines = text.splitlines(keepends=True)
        file.write_text("".join([*lines[:after_docstring], f"{line}\n", *lines[after_docstring:]]), encoding="utf-8")
    report = lint_imports(tmp_path)
    assert {name for name in contracts() if f"{name} BROKEN" in report} == {name for *_, name in PLANTED}
    broken = sections(report)
    for place, line, name in PLANTED:
        importer, imported = place.removesuffix(".py").replace("/", "."), line.removeprefix("import ")
        assert re.search(rf"{re.escape(importer)} -> {re.escape(imported)}\b", broken[name]), (
            name,
            importer,
            broken[name],
        )


def sections(report: str) -> dict[str, str]:
    """Return the linter's report per broken contract."""
    details = report.partition("Broken contracts")[2]
    parts = re.split(r"^(.+)\n-{3,}$", details, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_contract_is_covered_by_a_wrong_import() -> None:
    assert {name for *_, name in PLANTED} == set(contracts()) - {"dreamery"}


# --- migrations ---


def alembic(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), *words],
        cwd=ROOT,
        env=clean_env(DREAMERY_DATABASE_URL=url),
        capture_output=True,
        text=True,
        check=False,
    )


def shape_of(url: str) -> list[tuple[object, ...]]:
    """Return every column, constraint and index."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            """SELECT table_name, column_name, data_type, is_nullable, column_default
               FROM information_schema.columns WHERE table_schema = 'public'
               UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
               FROM pg_constraint WHERE connamespace = 'public'::regnamespace
               UNION ALL SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
               ORDER BY 1, 2, 3"""
        ).fetchall()


def test_migrations_match_tables_and_can_be_downgraded(make_database: Callable[[], str]) -> None:
    url = make_database()
    checked = alembic(url, "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    before = shape_of(url)
    down = alembic(url, "downgrade", "-1")
    assert down.returncode == 0, down.stdout + down.stderr
    assert shape_of(url) != before
    up = alembic(url, "upgrade", "head")
    assert up.returncode == 0, up.stdout + up.stderr
    assert shape_of(url) == before


def test_migrations_have_one_head_and_dated_names() -> None:
    files = [p for p in (ROOT / "migrations/versions").glob("*.py") if p.name != "__init__.py"]
    text = {p.name: p.read_text(encoding="utf-8") for p in files}
    revisions = {re.search(r"^revision: str = ['\"](.+)['\"]", t, re.MULTILINE)[1] for t in text.values()}  # type: ignore[index]
    parents = {m[1] for t in text.values() if (m := re.search(r"^down_revision: .+ = ['\"](.+)['\"]", t, re.MULTILINE))}
    assert len(revisions - parents) == 1
    for name in text:
        assert re.fullmatch(r"\d{4}_\d{2}_\d{2}_[a-z0-9_]+\.py", name), name


# --- settings and errors ---


def test_settings_have_short_descriptions() -> None:
    descriptions = {name: field.description or "" for name, field in Settings.model_fields.items()}
    assert [name for name, description in descriptions.items() if not 0 < len(description) <= 120] == []


def test_error_table_is_complete_and_well_formed() -> None:
    source = (ROOT / "worker/core/errors.py").read_text(encoding="utf-8")
    table = source[source.index("ERRORS: dict") : source.index("class DreameryError")]
    written = re.findall(r'_(?:request_)?row\(\s*"([a-z_]+)"', table)
    assert len(written) == len(set(written)) == len(ERRORS), "a repeated code hides a row"
    types = {
        "invalid_request_error", "authentication_error", "permission_error", "rate_limit_error", "insufficient_quota",
        "server_error",
    }  # fmt: skip
    for code, kind in ERRORS.items():
        assert code == kind.code
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
        assert 400 <= kind.status < 600
        assert kind.type in types
        assert kind.message[0].isupper()
        assert kind.message.endswith((".", "`."))
        # Every row has a Chinese message of its own.
        assert re.search(r"[\u4e00-\u9fff]{4}", kind.message_zh), code
        assert kind.message_zh.endswith("。"), code
        assert (kind.type == "server_error") == (kind.status >= 500), code
    assert len({kind.message_zh for kind in ERRORS.values()}) == len(ERRORS)
    assert {kind.reaction for kind in ERRORS.values()} == set(Reaction)
    assert {kind.fault for kind in ERRORS.values()} == set(Fault)
    for kind in ERRORS.values():
        # Another account can only help if the account is at fault.
        assert kind.reaction is not Reaction.OTHER_ACCOUNT or kind.fault is Fault.ACCOUNT, kind.code
        assert kind.fault not in {Fault.CONTENT, Fault.REQUEST} or kind.reaction is Reaction.GIVE_UP, kind.code


def test_every_raised_code_is_in_the_error_table() -> None:
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("DreameryError") and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    assert first.value in ERRORS, f"{path}: {first.value}"


def test_configuration_page_matches_settings() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == settings_reference(), "run `make docs`"
