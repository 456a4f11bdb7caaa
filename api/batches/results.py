"""Writes the two files of a batch that has ended: the answers of its lines, and the errors of those without one."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from uuid import UUID

import orjson

from api.batches.options import BatchOptions
from api.chat.completion import chat_completion
from api.http.errors import error_body
from api.images.serialization import images_response
from api.jobs.serialization import group_error
from api.videos.serialization import video_object, videos_response
from worker import storage
from worker.core.ids import new_id, public_id
from worker.core.job_state import JobState
from worker.db.batches import batches
from worker.db.batches.batch_files import NewBatchFile
from worker.db.batches.batches import BatchEnd
from worker.db.engine import Row, transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobView

_LINES_PER_READ = 100
_IN_MEMORY_BYTES = 1_000_000
_EXPIRED, _CANCELLED = "batch_expired", "batch_cancelled"


@dataclass(slots=True)
class _Writer:
    """One of the two files."""

    name: str
    file: IO[bytes]
    lines: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def write(self, value: dict[str, Any]) -> None:
        """Add a line."""
        text = orjson.dumps(value) + b"\n"
        self.file.write(text)
        self.digest.update(text)
        self.lines += 1

    def store(self, row: Row[Any], options: BatchOptions) -> NewBatchFile | None:
        """Store the bytes; None if there are none. The row of the file is written with the end of the batch."""
        if not self.lines:
            return None
        size = self.file.tell()
        new = NewBatchFile(
            id=new_id(),
            owner=row.owner,
            user_id=row.user_id,
            api_key_id=row.api_key_id,
            purpose="batch_output",
            name=f"{public_id('batch', row.id)}_{self.name}.jsonl",
            mime="application/jsonl",
            bytes=size,
            sha256=self.digest.hexdigest(),
            expires_seconds=options.keep_output_seconds,
        )
        self.file.seek(0)
        storage.put_file(new.key, self.file)
        return new


@dataclass(frozen=True, slots=True)
class WrittenResults:
    """The stored files of a batch, and how it ended."""

    files: list[NewBatchFile]
    end: BatchEnd


def write_results(row: Row[Any], renew: Callable[[], object]) -> WrittenResults:
    """Write and store the files. `renew` is called between pages, and may raise. Raises StorageError."""
    options = BatchOptions.of_row(row.options)
    expired = False
    # On disk once they are large.
    with SpooledTemporaryFile(_IN_MEMORY_BYTES) as answers, SpooledTemporaryFile(_IN_MEMORY_BYTES) as failures:
        output, errors = _Writer("output", answers), _Writer("errors", failures)
        for page in read_pages(row.id):
            for line, views in page:
                answer = line_answer(line, views, options.base)
                if answer["error"] is None and answer["response"]["status_code"] == 200:
                    output.write(answer)
                else:
                    errors.write(answer)
                    expired = expired or (answer["error"] or {}).get("code") == _EXPIRED
            renew()
        stored = {writer.name: writer.store(row, options) for writer in (output, errors)}
    state = "cancelled" if row.cancelling_at is not None else "expired" if expired else "completed"
    ids: dict[str, UUID | None] = {name: file.id if file is not None else None for name, file in stored.items()}
    end = BatchEnd(state, output.lines, errors.lines, ids["output"], ids["errors"])
    return WrittenResults([file for file in stored.values() if file is not None], end)


def read_pages(batch_id: UUID) -> Iterator[list[tuple[Row[Any], list[JobView]]]]:
    """Yield the lines of a batch in order, each with its jobs that were not deleted."""
    after = 0
    while True:
        with transaction() as tx:
            lines = batches.lines_page(tx, batch_id, after=after, limit=_LINES_PER_READ)
            ids = [job_id for line in lines for job_id in line.job_ids or ()]
            views = {view.job.id: view for view in queries.group_views(tx, ids)}
        if not lines:
            return
        yield [(line, [views[job_id] for job_id in line.job_ids or () if job_id in views]) for line in lines]
        after = lines[-1].n


def line_answer(line: Row[Any], views: list[JobView], base: str) -> dict[str, Any]:
    """Return a line of OpenAI's result file: the answer of the call, or why there is none."""
    answer = {
        "id": f"batch_req_{line.group_id.hex}",
        "custom_id": line.custom_id,
        "response": None,
        "error": None,
        "jobs": [public_id("job", view.job.id) for view in views],
    }
    if not views:
        return {**answer, "error": {"code": "job_deleted", "message": "The jobs of this line were deleted."}}
    done = [view for view in views if view.job.state == JobState.SUCCEEDED]
    if done and not any(view.files for view in done):
        return {**answer, "error": {"code": "file_expired", "message": "The results of this line were deleted."}}
    if not done:
        return {**answer, **_failure(line, views)}
    body = _body(line, done, base)
    stored = sum(len(view.files) for view in done)
    partial = {"partial": f"{stored}/{line.results}"} if stored < line.results else {}
    return {**answer, "response": {"status_code": 200, "request_id": _request_id(line), "body": body, **partial}}


def _request_id(line: Row[Any]) -> str:
    return f"req_{line.group_id.hex}"


def _failure(line: Row[Any], views: list[JobView]) -> dict[str, Any]:
    """Return the error of the call, or of the batch if the line never ran."""
    job = views[0].job
    if job.state == JobState.CANCELLED:
        return {"error": {"code": _CANCELLED, "message": "The line was cancelled before it had a result."}}
    if job.error_code == "job_expired":
        return {"error": {"code": _EXPIRED, "message": "The batch ended before this line was begun."}}
    error, status = group_error(views)
    body = error_body(error.kind, error.message, error.param)
    return {"response": {"status_code": status, "request_id": _request_id(line), "body": body}}


def _body(line: Row[Any], views: list[JobView], base: str) -> dict[str, Any]:
    if line.url == "/v1/videos":
        return video_object(views[0], base)
    if line.url == "/v1/videos/generations":
        return videos_response(views, response_format="url", base=base)
    if line.url == "/v1/chat/completions":
        return chat_completion(views, n=line.results, model=views[0].job.params["asked_model"], base=base)
    return images_response(views, n=line.results, response_format="url", base=base)
