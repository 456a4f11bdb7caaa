"""Small real videos and sounds for tests, and rows of finished video jobs."""

import hashlib
import io
from fractions import Fraction
from typing import Any
from uuid import UUID

import av
from PIL import Image
from sqlalchemy import text

from tests import factories
from worker import storage
from worker.db import files
from worker.db.engine import transaction
from worker.db.files import NewFile

MODEL = "jimeng-video-3.0"
ORDER = {
    "prompt": "waves", "ratio": "16:9", "resolution": "720p", "seconds": 5, "seed": 7, "fps": 24, "parts": [],
}  # fmt: skip


def film(*, seconds: int = 1, width: int = 64, height: int = 48, color: str = "navy") -> bytes:
    """An H.264 MP4 of one colour."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=4)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(4 * seconds):
            frame = av.VideoFrame.from_image(Image.new("RGB", (width, height), color))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def sound(*, seconds: int = 1) -> bytes:
    """A WAV of silence."""
    out = io.BytesIO()
    with av.open(out, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for n in range(seconds):
            frame = av.AudioFrame(format="s16", layout="mono", samples=8000)
            frame.planes[0].update(bytes(frame.planes[0].buffer_size))
            frame.sample_rate, frame.pts, frame.time_base = 8000, n * 8000, Fraction(1, 8000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def make_video_job(account_ids: list[UUID], *, order: dict[str, Any] | None = None, **changes: Any) -> UUID:
    """An accepted video job, queued, as intake would make it."""
    params = {"order": {**ORDER, **(order or {})}, "n": 1, "flags": {}, "asked_model": MODEL, "images": []}
    with transaction() as tx:
        return factories.make_job(tx, account_ids, **{"kind": "video", "model": MODEL, "params": params, **changes})


def finish_video(job_id: UUID, account_id: UUID, *, data: bytes, sheet: bool = True) -> None:
    """The job has succeeded: its video and forms are stored, their rows written."""
    poster = io.BytesIO()
    Image.new("RGB", (64, 48), "navy").save(poster, "JPEG")
    forms = [("original", data, "video/mp4", "mp4"), ("thumbnail", poster.getvalue(), "image/jpeg", "jpeg")]
    if sheet:
        forms.append(("spritesheet", poster.getvalue() + b"\0", "image/jpeg", "jpeg"))
    rows = []
    for variant, content, mime, ending in forms:
        key = f"results/{job_id.hex}/0-{variant}.{ending}"
        storage.put_file(key, io.BytesIO(content))
        length = 5.04 if variant == "original" else None
        rows.append(
            NewFile(
                n=0, key=key, mime=mime, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(),
                width=64, height=48, seconds=length, variant=variant,
            )
        )  # fmt: skip
    with transaction() as tx:
        files.add_files(tx, job_id, rows)
        tx.run(
            text(
                """UPDATE jobs SET state = 'succeeded', account_id = :account, attempt = 1, progress = 100,
                       submit_key = gen_random_uuid(), submitted_at = now() - interval '90 seconds', finished_at = now()
                   WHERE id = :id"""
            ),
            {"id": job_id, "account": account_id},
        )


def set_state(job_id: UUID, account_id: UUID, state: str, **columns: Any) -> None:
    """Put the job where the engine would have brought it."""
    values = {
        "submit_key": "gen_random_uuid()",
        "holds_slot": "true" if state in {"submitting", "running"} else "false",
        "submitted_at": "now() - interval '30 seconds'" if state != "submitting" else "NULL",
        "finished_at": "now()" if state in {"failed", "cancelled"} else "NULL",
    }
    sets = ", ".join(
        [f"{name} = {value}" for name, value in values.items()] + [f"{name} = :{name}" for name in columns]
    )
    with transaction() as tx:
        tx.run(
            text(f"UPDATE jobs SET state = :state, account_id = :account, attempt = 1, {sets} WHERE id = :id"),
            {"id": job_id, "account": account_id, "state": state, **columns},
        )
