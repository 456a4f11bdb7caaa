"""A small client of our own HTTP API for the command line: calls, follows jobs, saves files. Standard library only."""

import contextlib
import http.client
import json
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

Json = dict[str, Any]
FOLLOW_INTERVAL = 0.4
TERMINAL = frozenset({"completed", "failed", "cancelled"})
_ENDINGS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif", "video/mp4": "mp4"}


class ClientError(Exception):
    """A call that did not work, in words for the person at the terminal; `code` is the server's stable code."""

    def __init__(self, message: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Client:
    """Calls one platform with one key."""

    url: str
    key: str

    def get(self, path: str, **query: object) -> Json:
        """GET a JSON object; parameters that are None are left out."""
        asked = {name: str(value) for name, value in query.items() if value is not None}
        return self._json("GET", path + (f"?{urllib.parse.urlencode(asked)}" if asked else ""))

    def post(self, path: str, body: Json) -> Json:
        """POST a JSON object."""
        return self._json("POST", path, json.dumps(body).encode())

    def patch(self, path: str, body: Json) -> Json:
        """PATCH with a JSON object."""
        return self._json("PATCH", path, json.dumps(body).encode())

    def delete(self, path: str) -> Json:
        """DELETE; the object as it was."""
        return self._json("DELETE", path)

    def every(self, path: str, **query: object) -> Iterator[Json]:
        """The entries of a list, page after page."""
        after = None
        while True:
            page = self.get(path, after=after, **query)
            yield from page["data"]
            if not page.get("has_more"):
                return
            after = page["data"][-1]["id"]

    def stream(self, path: str, body: Json) -> Iterator[Json]:
        """POST, and the JSON objects of the answer's events as they come. An error among them is raised."""
        address = self.url.rstrip("/") + path
        with self._opened("POST", address, json.dumps(body).encode(), with_key=True) as answer:
            for line in _lines(answer):
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = _read_object(line.removeprefix("data: "), self.url)
                if fault := event.get("error"):
                    raise ClientError(str(fault["message"]), code=str(fault.get("code") or ""))
                yield event

    def copy(self, path: str, out: IO[bytes], **query: object) -> None:
        """GET a body of any length, as it comes."""
        asked = {name: str(value) for name, value in query.items() if value is not None}
        address = f"{self.url.rstrip('/')}{path}?{urllib.parse.urlencode(asked)}"
        with self._opened("GET", address, None, with_key=True) as answer:
            shutil.copyfileobj(answer, out)

    def save(self, link: str, target: Path) -> None:
        """Download a result. Links work without the key, so it is not sent: they may lead to a file store elsewhere."""
        address = urllib.parse.urljoin(self.url + "/", link)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(target.name + ".part")
        with self._opened("GET", address, None, with_key=False) as answer:
            content = answer.read()
        draft.write_bytes(content)
        draft.replace(target)

    def _json(self, method: str, path: str, body: bytes | None = None) -> Json:
        with self._opened(method, self.url.rstrip("/") + path, body, with_key=True) as answer:
            return _read_object(answer.read(), self.url)

    @contextlib.contextmanager
    def _opened(
        self, method: str, address: str, body: bytes | None, *, with_key: bool
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer, to be read in the block; whatever fails there is taken for the peer's fault."""
        headers = {"Accept": "*/*"} | ({"Authorization": f"Bearer {self.key}"} if with_key else {})
        headers |= {"Content-Type": "application/json"} if body is not None else {}
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in {"http", "https"}:
            raise ClientError(f"{address} is not an http:// or https:// address.")
        request = urllib.request.Request(address, data=body, headers=headers, method=method)  # noqa: S310 - checked
        # A proxy of the surroundings must not be asked for this machine itself.
        local = parts.hostname in {"127.0.0.1", "localhost", "::1"}
        opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
        try:
            with opener.open(request, timeout=60) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            raise _told_by_server(error) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ClientError(
                f"Nothing answers at {parts.scheme}://{parts.netloc} ({reason}). Start a platform with `dreamery up`, "
                "or name the right one with --url or DREAMERY_URL."
            ) from error


def _lines(answer: http.client.HTTPResponse) -> Iterator[str]:
    for line in answer:
        yield line.decode().rstrip("\r\n")


def _read_object(text: str | bytes, url: str) -> Json:
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise ClientError(f"{url} did not answer with JSON. Is it a Dreamery platform?") from error
    return answer if isinstance(answer, dict) else {"data": answer}


def _told_by_server(error: urllib.error.HTTPError) -> ClientError:
    try:
        with error:
            fault = json.loads(error.read())["error"]
        message, code = str(fault["message"]), str(fault.get("code") or "")
    except (ValueError, KeyError, TypeError):
        message, code = f"The server answered {error.code} {error.reason}.", ""
    return ClientError(message, status=error.code, code=code)


def started_jobs(answer: Json) -> list[Json]:
    """The jobs of an asynchronous answer: one, or several when one job cannot make that many pictures."""
    jobs = answer.get("jobs")
    return jobs if isinstance(jobs, list) and jobs else [answer]


def follow(client: Client, jobs: Iterable[Json], on_progress: Callable[[list[Json]], None]) -> list[Json]:
    """Ask after the jobs until all have ended; tells each round what is known. A failed job raises its error."""
    known = list(jobs)
    pause = threading.Event()
    while True:
        known = [job if job["status"] in TERMINAL else client.get(f"/v1/jobs/{job['id']}") for job in known]
        on_progress(known)
        if all(job["status"] in TERMINAL for job in known):
            break
        pause.wait(FOLLOW_INTERVAL)
    for job in known:
        if job["status"] != "completed":
            fault = job.get("error") or {}
            raise ClientError(
                f"Job {job['id']} {job['status']}: {fault.get('message') or 'no reason given'}",
                code=str(fault.get("code") or ""),
            )
    return known


def save_results(client: Client, jobs: Iterable[Json], folder: Path) -> list[tuple[Path, Json]]:
    """Download every result of finished jobs; returns the files with what the server said of each."""
    saved = []
    for job in jobs:
        for number, item in enumerate(job.get("output") or [], start=1):
            ending = _ENDINGS.get(str(item.get("mime")), "bin")
            target = folder / f"{job['id']}-{number}.{ending}"
            client.save(str(item["url"]), target)
            saved.append((target, item))
    return saved
