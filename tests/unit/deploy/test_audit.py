"""`make audit-update` against an OSV service over HTTP, and `make audit` with what it wrote."""

import json
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from deploy.supply_chain import audit

TODAY = date(2026, 12, 1)
ADVISORY = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "aliases": ["CVE-2026-12345"],
    "summary": "Requests loop forever.",
    "affected": [
        {"package": {"name": "celery"}, "ranges": [{"events": [{"introduced": "0"}, {"fixed": "99.1"}]}]},
        {"package": {"name": "other"}, "ranges": [{"events": [{"fixed": "3.0"}]}]},
    ],
}


class Service(BaseHTTPRequestHandler):
    """Speaks OSV's protocol: one package has an advisory, on the second page of its answer."""

    questions: ClassVar[list[dict[str, Any]]] = []
    is_broken: ClassVar[bool] = False

    def do_POST(self) -> None:
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        self.questions.extend(queries)
        self._answer({"results": [self._result(query) for query in queries][: 1 if self.is_broken else None]})

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self._answer(ADVISORY if name == ADVISORY["id"] else {"id": name, "withdrawn": "2026-11-01T00:00:00Z"})

    @staticmethod
    def _result(query: dict[str, Any]) -> dict[str, Any]:
        if query["package"]["name"] != "celery":
            return {}
        if "page_token" not in query:
            return {"vulns": [{"id": "GHSA-withdrawn"}], "next_page_token": "second"}
        return {"vulns": [{"id": ADVISORY["id"]}]}

    def _answer(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Service, "questions", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def accept(folder: Path, until: str) -> None:
    (folder / "accepted.toml").write_text(f'[CVE-2026-12345]\nreason = "we never loop"\nuntil = {until}\n')


def test_snapshot_has_every_package_and_its_advisories(service: str, tmp_path: Path) -> None:
    assert audit.main(["update", "--service", service, "--folder", str(tmp_path)]) == 1, "celery has an advisory"
    asked = {(q["package"]["ecosystem"], q["package"]["name"], q["version"]) for q in Service.questions}
    names = {"pypi": "PyPI", "npm": "npm"}
    assert asked == {(names[item.kind], item.name, item.version) for item in audit.our_packages()}
    assert ("npm", "preact") in {(ecosystem, name) for ecosystem, name, _ in asked}
    snapshot = json.loads((tmp_path / "snapshot.json").read_text())
    (advisory,) = snapshot["advisories"]
    assert advisory["fixed_in"] == ["99.1"]
    assert snapshot["source"] == service
    assert [file.name for file in tmp_path.iterdir()] == ["snapshot.json"]


def test_advisory_fails_until_it_is_accepted(service: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audit.main(["update", "--service", service, "--folder", str(tmp_path)])
    capsys.readouterr()
    assert audit.run_check(tmp_path, TODAY) == 1
    assert "GHSA-aaaa-bbbb-cccc Requests loop forever. Fixed in 99.1." in capsys.readouterr().err
    accept(tmp_path, "2026-12-01")
    assert audit.run_check(tmp_path, TODAY) == 0
    assert "no known vulnerability" in capsys.readouterr().out
    accept(tmp_path, "2026-11-30")
    assert audit.run_check(tmp_path, TODAY) == 1
    assert "It was accepted until 2026-11-30." in capsys.readouterr().err


def test_changed_snapshot_and_unknown_package_fail(service: str, tmp_path: Path) -> None:
    snapshot = audit.fetch(service, audit.our_packages())
    packages = audit.our_packages()
    assert len(audit.check(snapshot, packages, {}, TODAY)) == 1
    del snapshot["packages"]["pypi/kombu"]
    assert "changed by hand" in audit.check(snapshot, packages, {}, TODAY)[0]
    snapshot["sha256"] = audit.digest(snapshot)
    assert any("does not know pypi/kombu" in line for line in audit.check(snapshot, packages, {}, TODAY))
    with pytest.raises(audit.AuditError, match="There is no snapshot"):
        audit.run_check(tmp_path, TODAY)


def test_incomplete_answer_leaves_the_snapshot_unchanged(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "snapshot.json").write_text("of yesterday")
    monkeypatch.setattr(Service, "is_broken", True)
    assert audit.main(["update", "--service", service, "--folder", str(tmp_path)]) == 1
    assert "The snapshot is unchanged" in capsys.readouterr().err
    assert (tmp_path / "snapshot.json").read_text() == "of yesterday"


def test_accepted_advisory_needs_a_reason_and_a_date(tmp_path: Path) -> None:
    (tmp_path / "accepted.toml").write_text('[CVE-1]\nreason = ""\nuntil = 2026-12-01\n')
    with pytest.raises(audit.AuditError, match="CVE-1 needs"):
        audit.read_accepted(tmp_path / "accepted.toml")
    assert audit.read_accepted(audit.FOLDER / "accepted.toml") == {}
