"""Accounts, orders, uploads and tasks as plain JSON, and back. Session ids, keys and signed links are left out."""

import math
from dataclasses import asdict, replace

import orjson

from worker.sandbox.accounts import Account
from worker.sandbox.ark.requests import VideoOrder
from worker.sandbox.ark.tasks import Task
from worker.sandbox.jobs import Job
from worker.sandbox.models.image_models import IMAGE_MODELS
from worker.sandbox.models.video_models import VIDEO_MODELS
from worker.sandbox.requests.order import Order, VideoOptions
from worker.sandbox.scripts import AccountBehaviour, read_script
from worker.sandbox.uploads.file_inspection import FileInfo, Thumbnail

_HISTORY = 100  # lines of an account's credit history
_ACCOUNT = ("name", "uid", "cluster", "purchased", "gifted", "submits", "charged", "max_in_flight")
_ORDER = ("submit_id", "prompt", "seed", "width", "height", "count", "price", "kind")
_JOB = ("number", "accepted_at", "start_at", "generate_id", "shows_items_early")
_TASK = ("id", "created_at", "start_at", "failure", "clip_seconds", "cancelled_at", "life")
Pictures = dict[str, Thumbnail]


def pictures_of(order: Order) -> list[Thumbnail]:
    """Return the pictures that the results of an order are drawn from."""
    frames = (order.video.first, order.video.last) if order.video else ()
    return [*order.references, *(frame for frame in frames if frame)]


def dump_account(account: Account) -> bytes:
    values = {name: getattr(account, name) for name in _ACCOUNT}
    behaviour, gift_day = asdict(account.behaviour), account.gift_day
    spent, refunds = list(account.spent)[:_HISTORY], [one for one in account.refunds if math.isfinite(one[0])]
    return orjson.dumps({**values, "behaviour": behaviour, "gift_day": gift_day, "spent": spent, "refunds": refunds})


def load_account(digest: str, raw: bytes) -> Account:
    values = orjson.loads(raw)
    account = Account(
        **{name: values[name] for name in _ACCOUNT}, digest=digest, behaviour=AccountBehaviour(**values["behaviour"])
    )
    account.gift_day = values["gift_day"]
    account.spent.extend(values["spent"])
    account.refunds.extend((at, amount, submit_id) for at, amount, submit_id in values["refunds"])
    return account


def dump_job(job: Job) -> bytes:
    order, video = job.order, job.order.video
    frames = video and {
        **asdict(replace(video, first=None, last=None)),
        "first": video.first and video.first.digest,
        "last": video.last and video.last.digest,
    }
    return orjson.dumps(
        {
            **{name: getattr(job, name) for name in _JOB},
            **{name: getattr(order, name) for name in _ORDER},
            "account": job.account.digest,
            "model": order.model.key,
            "references": [picture.digest for picture in order.references],
            "video": frames,
            "finish_at": _finite(job.finish_at),
        }
    )


def load_job(raw: bytes, accounts: dict[str, Account], pictures: Pictures) -> Job | None:
    """Return the job, or None if its account or model is gone. Pictures that are gone are left out of it."""
    values = orjson.loads(raw)
    account = accounts.get(values["account"])
    model = (VIDEO_MODELS if values["video"] else IMAGE_MODELS).get(values["model"])
    if account is None or model is None:
        return None
    video, references = values["video"], [pictures.get(digest) for digest in values["references"]]
    frames = {name: pictures.get(video[name] or "") for name in ("first", "last")} if video else {}
    order = Order(
        **{name: values[name] for name in _ORDER},
        model=model,
        references=tuple(picture for picture in references if picture),
        video=VideoOptions(**(video | frames)) if video else None,
    )
    return Job(
        **{name: values[name] for name in _JOB},
        account=account,
        order=order,
        script=read_script(order.prompt),
        finish_at=_or_never(values["finish_at"]),
    )


def dump_file_info(file_info: FileInfo) -> bytes:
    picture = file_info.thumbnail and file_info.thumbnail.digest
    return orjson.dumps({**asdict(replace(file_info, thumbnail=None)), "thumbnail": picture})


def load_file_info(raw: bytes, pictures: Pictures) -> FileInfo | None:
    """Return the facts of a file, or None if its picture is gone."""
    values = orjson.loads(raw)
    digest = values.pop("thumbnail")
    if digest and digest not in pictures:
        return None
    return FileInfo(**values, thumbnail=pictures[digest] if digest else None)


def dump_task(task: Task, main: str) -> bytes:
    """`main` = the hash of the main account. The address of callbacks and the links of inputs hold secrets."""
    order = asdict(replace(task.order, links=(), callback_url=""))
    values = {name: getattr(task, name) for name in _TASK}
    return orjson.dumps({**values, "main": main, "order": order, "finish_at": _finite(task.finish_at)})


def load_task(raw: bytes) -> tuple[str, Task]:
    """Return the hash of the main account, and the task."""
    values = orjson.loads(raw)
    order = VideoOrder(**{**values["order"], "links": ()})
    main = values["main"]
    return main, Task(
        **{name: values[name] for name in _TASK},
        main=main[:12],
        order=order,
        script=read_script(order.prompt),
        finish_at=_or_never(values["finish_at"]),
    )


def _finite(moment: float) -> float | None:
    return moment if math.isfinite(moment) else None


def _or_never(moment: float | None) -> float:
    return math.inf if moment is None else moment
