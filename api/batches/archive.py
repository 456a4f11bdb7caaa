"""A zip of the results of a batch: files named by `custom_id`, a contact sheet and a manifest. Streamed, not stored."""

import html
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import orjson
from zipstream import ZipStream

from api.batches.results import read_pages
from api.http.clients.storage_threads import in_storage_thread
from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.db.engine import Row
from worker.db.jobs.queries import JobView

_UNSAFE_CHARACTERS = re.compile(r"[^\w.-]+")
_MOST_NAME = 100
_EXTENSIONS = {"image/jpeg": "jpg", "video/quicktime": "mov"}
_STYLE = (
    "body{font:14px system-ui;margin:16px;background:#fafafa;color:#222}"
    "main{display:grid;grid-template-columns:repeat(auto-fill,minmax(220px,1fr));gap:12px}"
    "figure{margin:0;padding:8px;background:#fff;border:1px solid #ddd;border-radius:6px}"
    "img,video{width:100%;height:220px;object-fit:contain;background:#eee}"
    "figcaption{overflow-wrap:anywhere}p{color:#666;margin:4px 0 0}"
)


@dataclass(slots=True)
class _Entry:
    """A file of the archive."""

    name: str
    custom_id: str
    prompt: str
    model: str
    job: str
    item: Any


@dataclass(slots=True)
class _Contents:
    """What the archive will hold: rows only, no bytes."""

    entries: list[_Entry] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def add_line(self, line: Row[Any], views: list[JobView]) -> None:
        """Add the files of a line, or why it has none."""
        files = [(view, item) for view in views for item in view.files if item.removed_at is None]
        if not files:
            states = sorted({str(view.job.error_code or view.job.state) for view in views}) or ["deleted"]
            self.skipped.append({"custom_id": line.custom_id, "line": line.n, "reason": ", ".join(states)})
        stem = _UNSAFE_CHARACTERS.sub("-", line.custom_id)[:_MOST_NAME].strip("-.") or f"line-{line.n}"
        for number, (view, item) in enumerate(files, 1):
            extension = _EXTENSIONS.get(item.mime) or item.mime.partition("/")[2]
            suffix = f"-{number}" if len(files) > 1 else ""
            name = f"{stem}{suffix}.{extension}"
            if name.lower() in self.names:
                # Two ids may differ only in characters that file names do not have.
                name = f"{stem}-line-{line.n}{suffix}.{extension}"
            self.names.add(name.lower())
            prompt = str(view.job.params["order"].get("prompt") or "")
            job = public_id("job", view.job.id)
            self.entries.append(_Entry(name, line.custom_id, prompt, view.job.model, job, item))


def build_archive(row: Row[Any]) -> ZipStream:
    """Return the archive; its files are read while it is sent. Raises `file_not_found` if it would be empty."""
    contents = _Contents()
    for line, views in chain.from_iterable(read_pages(row.id)):
        contents.add_line(line, views)
    if not contents.entries:
        raise DreameryError("file_not_found", "This batch has no files to download (yet).")
    # Stored, not deflated: pictures and videos are compressed already, and the length is known in advance.
    archive = ZipStream(sized=True)
    archive.add(orjson.dumps(_manifest(row, contents), option=orjson.OPT_INDENT_2), "manifest.json")
    archive.add(_contact_sheet(row, contents).encode(), "contact-sheet.html")
    for one in contents.entries:
        archive.add(storage.iter_file(one.item.key, size=one.item.bytes), f"files/{one.name}", size=one.item.bytes)
    return archive


def _manifest(row: Row[Any], contents: _Contents) -> dict[str, Any]:
    return {
        "object": "batch.manifest",
        "batch": public_id("batch", row.id),
        "files": [
            {
                "name": f"files/{one.name}",
                "custom_id": one.custom_id,
                "job": one.job,
                "model": one.model,
                "prompt": one.prompt,
                "mime": one.item.mime,
                "width": one.item.width,
                "height": one.item.height,
                "seconds": one.item.seconds,
                "bytes": one.item.bytes,
                "sha256": one.item.sha256,
            }
            for one in contents.entries
        ],
        "skipped": contents.skipped,
    }


def _contact_sheet(row: Row[Any], contents: _Contents) -> str:
    """Return a page that shows all files of the folder beside it. It needs no network and runs no script."""
    title = html.escape(public_id("batch", row.id))
    figures = "".join(map(_figure, contents.entries))
    policy = "default-src 'none'; img-src 'self' file:; media-src 'self' file:; style-src 'unsafe-inline'"
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1><main>{figures}</main></body></html>\n"
    )


def _figure(one: _Entry) -> str:
    link = f"files/{html.escape(one.name)}"
    is_video = one.item.mime.startswith("video/")
    shown = (
        f'<video src="{link}" controls preload="none"></video>'
        if is_video
        else f'<a href="{link}"><img src="{link}" alt="" loading="lazy"></a>'
    )
    caption = (
        f"<b>{html.escape(one.custom_id)}</b><p>{html.escape(one.prompt[:300])}</p><p>{html.escape(one.model)}</p>"
    )
    return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"


async def read_archive(archive: ZipStream) -> AsyncIterator[bytes]:
    """Yield the bytes of the archive."""
    chunks: Iterator[bytes] = iter(archive)
    while (chunk := await in_storage_thread(next, chunks, None)) is not None:
        yield chunk
