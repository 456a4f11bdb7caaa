"""The HTTP client of the command line: calls the API, waits for jobs, saves files, with the standard library."""

import contextlib
import http.client
import json
import secrets
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from api.cli.display.error_words import GIVE_A_KEY, in_command_words

Json = dict[str, Any]
FOLLOW_INTERVAL = 0.4
TERMINAL = frozenset({"completed", "failed", "cancelled"})
_ENDINGS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif", "video/mp4": "mp4"}


class ClientError(Exception):
    """A failed call with a message for the user; `code` is the error code of the server, or empty."""

    def __init__(self, message: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Client:
    """A client of one platform with one API key. `key_source` = where the key is from, if the user did not give it."""

    url: str
    key: str
    key_source: str = ""

    def get(self, path: str, **query: object) -> Json:
        """GET a JSON object. Parameters that are None are omitted. Raises ClientError."""
        params = {name: str(value) for name, value in query.items() if value is not None}
        return self._json("GET", path + (f"?{urllib.parse.urlencode(params)}" if params else ""))

    def post(self, path: str, body: Json) -> Json:
        """POST a JSON object and return the response. Raises ClientError."""
        return self._json("POST", path, json.dumps(body).encode())

    def upload(self, path: str, file: Path, **fields: str) -> Json:
        """POST a file as a multipart form and return the response. Raises ClientError."""
        boundary = secrets.token_hex(16)
        name = file.name.replace('"', "_")
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
            for field, value in fields.items()
        ]
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = b"".join(["".join(parts).encode(), file.read_bytes(), f"\r\n--{boundary}--\r\n".encode()])
        return self._json("POST", path, body, content_type=f"multipart/form-data; boundary={boundary}")

    def patch(self, path: str, body: Json) -> Json:
        """PATCH with a JSON object and return the response. Raises ClientError."""
        return self._json("PATCH", path, json.dumps(body).encode())

    def delete(self, path: str) -> Json:
        """DELETE and return the deleted object. Raises ClientError."""
        return self._json("DELETE", path)

    def list_all(self, path: str, **query: object) -> Iterator[Json]:
        """Yield all entries of a paginated list."""
        after = None
        while True:
            page = self.get(path, after=after, **query)
            yield from page["data"]
            if not page.get("has_more"):
                return
            after = page["data"][-1]["id"]

    def stream(self, path: str, body: Json) -> Iterator[Json]:
        """POST and yield the JSON objects of the event stream. Raises ClientError for an error event."""
        address = self.url.rstrip("/") + path
        with self._open("POST", address, json.dumps(body).encode(), with_key=True) as response:
            for line in _lines(response):
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = _read_object(line.removeprefix("data: "), self.url)
                if error := event.get("error"):
                    code = str(error.get("code") or "")
                    raise ClientError(in_command_words(str(error["message"]), code), code=code)
                yield event

    def copy(self, path: str, out: IO[bytes], **query: object) -> None:
        """GET a body of any length and write it to `out` as it arrives."""
        params = {name: str(value) for name, value in query.items() if value is not None}
        address = f"{self.url.rstrip('/')}{path}?{urllib.parse.urlencode(params)}"
        with self._open("GET", address, None, with_key=True) as response:
            shutil.copyfileobj(response, out)

    def save(self, link: str, target: Path) -> None:
        """Download a result. The key is not sent: links work without it and may point to another file store."""
        address = urllib.parse.urljoin(self.url + "/", link)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial_file = target.with_name(target.name + ".part")
        with self._open("GET", address, None, with_key=False) as response:
            content = response.read()
        partial_file.write_bytes(content)
        partial_file.replace(target)

    def _json(
        self, method: str, path: str, body: bytes | None = None, *, content_type: str = "application/json"
    ) -> Json:
        address = self.url.rstrip("/") + path
        with self._open(method, address, body, with_key=True, content_type=content_type) as response:
            return _read_object(response.read(), self.url)

    @contextlib.contextmanager
    def _open(
        self,
        method: str,
        address: str,
        body: bytes | None,
        *,
        with_key: bool,
        content_type: str = "application/json",
    ) -> Iterator[http.client.HTTPResponse]:
        """Open a response to be read in the block. Failures in the block are raised as ClientError."""
        headers = {"Accept": "*/*"} | ({"Authorization": f"Bearer {self.key}"} if with_key else {})
        headers |= {"Content-Type": content_type} if body is not None else {}
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in {"http", "https"}:
            raise ClientError(f"{address} is not an http:// or https:// URL.")
        request = urllib.request.Request(address, data=body, headers=headers, method=method)  # noqa: S310 - checked
        # Connections to this machine bypass the proxy of the environment.
        local = parts.hostname in {"127.0.0.1", "localhost", "::1"}
        opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
        try:
            with opener.open(request, timeout=60) as response:
                yield response
        except urllib.error.HTTPError as error:
            refusal = _server_error(error)
            if refusal.status in {401, 403}:
                used = f"It used {self.key_source}. " if self.key_source else ""
                text = f"{refusal} {used}{GIVE_A_KEY}"
                raise ClientError(text, status=refusal.status, code=refusal.code) from error
            raise refusal from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ClientError(
                f"Nothing answers at {parts.scheme}://{parts.netloc} ({reason}). Start a platform with `dreamery up`, "
                "or set the right URL with --url or DREAMERY_URL."
            ) from error


def _lines(response: http.client.HTTPResponse) -> Iterator[str]:
    for line in response:
        yield line.decode().rstrip("\r\n")


def _read_object(text: str | bytes, url: str) -> Json:
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise ClientError(f"{url} did not return JSON. Is it a Dreamery platform?") from error
    return parsed if isinstance(parsed, dict) else {"data": parsed}


def _server_error(error: urllib.error.HTTPError) -> ClientError:
    try:
        with error:
            body = json.loads(error.read())["error"]
        message, code = str(body["message"]), str(body.get("code") or "")
    except (ValueError, KeyError, TypeError):
        message, code = f"The server answered {error.code} {error.reason}.", ""
    return ClientError(in_command_words(message, code), status=error.code, code=code)


def accepted_jobs(response: Json) -> list[Json]:
    """Return the jobs of an asynchronous response: one, or several if one job cannot make that many images."""
    jobs = response.get("jobs")
    return jobs if isinstance(jobs, list) and jobs else [response]


def wait_for_jobs(client: Client, jobs: Iterable[Json], on_progress: Callable[[list[Json]], None]) -> list[Json]:
    """Poll the jobs until all have finished and return them. Calls `on_progress` on every poll.

    Raises ClientError when a job failed or was cancelled.
    """
    current = list(jobs)
    pause = threading.Event()
    while True:
        current = [job if job["status"] in TERMINAL else client.get(f"/v1/jobs/{job['id']}") for job in current]
        on_progress(current)
        if all(job["status"] in TERMINAL for job in current):
            break
        pause.wait(FOLLOW_INTERVAL)
    for job in current:
        if job["status"] != "completed":
            error = job.get("error") or {}
            raise ClientError(
                f"Job {job['id']} {job['status']}: {error.get('message') or 'no reason given'}",
                code=str(error.get("code") or ""),
            )
    return current


def save_results(client: Client, jobs: Iterable[Json], folder: Path) -> list[tuple[Path, Json]]:
    """Download all results of finished jobs and return each file with its description from the server."""
    saved = []
    for job in jobs:
        for number, item in enumerate(job.get("output") or [], start=1):
            extension = _ENDINGS.get(str(item.get("mime")), "bin")
            target = folder / f"{job['id']}-{number}.{extension}"
            client.save(str(item["url"]), target)
            saved.append((target, item))
    return saved
