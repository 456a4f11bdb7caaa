"""Writes rows of video jobs as the engine does, for tests of the API's responses."""

import hashlib
import io
from typing import Any
from uuid import UUID

from PIL import Image
from sqlalchemy import text

from worker import storage
from worker.db.engine import transaction
from worker.db.jobs import files
from worker.db.jobs.files import NewFile


def finish_video(job_id: UUID, account_id: UUID, *, data: bytes, sheet: bool = True) -> None:
    """Store a video with its variants and mark the job as succeeded."""
    poster = io.BytesIO()
    Image.new("RGB", (64, 64), "navy").save(poster, "JPEG")
    variants = [("original", data, "video/mp4", "mp4"), ("thumbnail", poster.getvalue(), "image/jpeg", "jpeg")]
    if sheet:
        variants.append(("spritesheet", poster.getvalue() + b"\0", "image/jpeg", "jpeg"))
    rows = []
    for variant, content, mime, extension in variants:
        key = f"results/{job_id.hex}/0-{variant}.{extension}"
        storage.put_file(key, io.BytesIO(content))
        length = 5.04 if variant == "original" else None
        rows.append(
            NewFile(
                n=0, key=key, mime=mime, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(),
                width=64, height=64, seconds=length, variant=variant,
            )
        )  # fmt: skip
    with transaction() as tx:
        files.add_files(tx, [(job_id, row) for row in rows])
        tx.run(
            text(
                """UPDATE jobs SET state = 'succeeded', account_id = :account, attempt = 1, progress = 100,
                       submit_key = gen_random_uuid(), submitted_at = now() - interval '90 seconds', finished_at = now()
                   WHERE id = :id"""
            ),
            {"id": job_id, "account": account_id},
        )


def set_state(job_id: UUID, account_id: UUID, state: str, **columns: Any) -> None:
    """Set the state and the columns that the engine would have set with it."""
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
