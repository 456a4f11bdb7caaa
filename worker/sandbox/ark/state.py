"""The state of the Ark interface: main accounts, their tasks, limits, and the ledger of what was made and charged."""

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

from worker.sandbox.accounts import digest_of
from worker.sandbox.ark.keys import LAG_SECONDS
from worker.sandbox.ark.lost import LostAnswers
from worker.sandbox.ark.prices import currency_of, image_cost, video_cost
from worker.sandbox.ark.refusals import RefusedError
from worker.sandbox.ark.requests import ImageOrder, VideoOrder
from worker.sandbox.ark.tasks import FINAL, Task
from worker.sandbox.kept.state_file import StateFile
from worker.sandbox.options import Options
from worker.sandbox.scripts import Script

KEEP = 20_000
_KEPT_SECONDS = 7 * 86_400
_WINDOW_SECONDS = 60.0
# Calls a minute and main account, and the pace of lists.
IMAGES_PER_MINUTE = 500
CREATES_PER_MINUTE = 600
LIST_SECONDS = 1.0
READS_PER_SECOND = 20
_IN_FLIGHT = 10
# Of a customer who is a person, and of videos in 4k.
_PERSONAL_CREATES, _PERSONAL_IN_FLIGHT = 180, 3
_4K_CREATES, _4K_IN_FLIGHT = 15, 1
# With `burst` or `full` in the key: creates in ten seconds, and tasks that are not finished.
_BURST, _BURST_SECONDS = 3, 10.0
_FULL = 3
_CLIP_SECONDS = 5.0


@dataclass
class MainAccount:
    """A paying customer: all keys with the same text before the first dot share limits, tasks and money."""

    name: str
    tasks: OrderedDict[str, Task] = field(default_factory=OrderedDict)
    calls: dict[str, deque[float]] = field(default_factory=dict)
    listed_at: float = 0.0

    def count_images(self, order: ImageOrder, now: float) -> None:
        """Count the images of the last minute. Raises RefusedError above the limit."""
        weight = 17 if order.layers else 1
        code = "ModelAccountIpmRateLimitExceeded"
        self._count(f"image {order.public}", IMAGES_PER_MINUTE, _WINDOW_SECONDS, now, code=code, weight=weight)

    def count_create(self, order: VideoOrder, words: frozenset[str], now: float) -> None:
        """Count the creates of the last minute and the tasks in flight. Raises RefusedError above a limit."""
        if "burst" in words:
            self._count("burst", _BURST, _BURST_SECONDS, now, code="RequestBurstTooFast")
        if "full" in words and len(self.in_flight(order.model, now)) >= _FULL:
            raise RefusedError("QuotaExceeded", "The number of queued tasks exceeds the limit.")
        most = _PERSONAL_CREATES if "personal" in words else CREATES_PER_MINUTE
        code = "ModelAccountRpmRateLimitExceeded"
        if order.resolution == "4k":
            self._count(f"video {order.public} 4k", _4K_CREATES, _WINDOW_SECONDS, now, code=code)
        self._count(f"video {order.public}", most, _WINDOW_SECONDS, now, code=code)

    def count_read(self, now: float) -> None:
        """Count the reads and deletes of the last second. Raises RefusedError above the limit."""
        self._count("reads", READS_PER_SECOND, 1.0, now, code="RateLimitExceeded.EndpointRPMExceeded")

    def _count(self, what: str, most: int, seconds: float, now: float, *, code: str, weight: int = 1) -> None:
        calls = self.calls.setdefault(what, deque())
        while calls and calls[0] <= now - seconds:
            calls.popleft()
        if len(calls) + weight > most:
            raise RefusedError(code, f"more than {most} in {seconds:.0f} seconds")
        calls.extend([now] * weight)

    def count_list(self, now: float) -> None:
        """Raises RefusedError if the last list was less than a second ago."""
        if now - self.listed_at < LIST_SECONDS * 0.9:
            raise RefusedError("RateLimitExceeded.EndpointRPMExceeded", "one list a second")
        self.listed_at = now

    def in_flight(self, model: str, now: float) -> list[Task]:
        """Return the tasks of a model that are running, and those that will."""
        return [task for task in self.tasks.values() if task.order.model == model and task.status(now) not in FINAL]

    def places(self, order: VideoOrder, words: frozenset[str], now: float) -> tuple[list[Task], int]:
        """Return the tasks in whose places a new one waits, and how many of them may run at once."""
        tasks = self.in_flight(order.model, now)
        if order.resolution == "4k":
            return [task for task in tasks if task.order.resolution == "4k"], _4K_IN_FLIGHT
        return tasks, _PERSONAL_IN_FLIGHT if "personal" in words else _IN_FLIGHT

    def listed(self, words: frozenset[str], now: float) -> list[Task]:
        """Return the tasks that a list knows, newest first."""
        tasks = [task for task in reversed(self.tasks.values()) if not task.script.absent]
        return [task for task in tasks if task.created_at <= now - LAG_SECONDS] if "lag" in words else tasks


class ArkLedger:
    """What was asked for, made and charged. It never contains keys."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.violations: Counter[str] = Counter()
        self.details: deque[dict[str, Any]] = deque(maxlen=20)
        self.images: deque[dict[str, Any]] = deque(maxlen=KEEP)
        self.videos: deque[Task] = deque(maxlen=KEEP)

    def record_images(self, main: str, order: ImageOrder, generated: int, now: float) -> None:
        """Record an image call that was carried out; `generated` images are charged."""
        self.totals.update(image_calls=1, images=generated)
        self.images.append(
            {
                "account": main,
                "model": order.model,
                "prompt": order.prompt,
                "generated": generated,
                "size": f"{order.width}x{order.height}",
                "inputs": order.inputs,
                "layers": order.layers,
                "currency": currency_of(order.public),
                "cost": image_cost(order, generated),
                "at": now,
            }
        )

    def record_lost(self, kind: str) -> None:
        """Record an answer that did not arrive."""
        self.totals[f"lost_{kind}"] += 1

    def record_flags(self, prompt: str, main: str, now: float) -> None:
        """Record a prompt with old parameters. Upstream would obey them."""
        self.violations["PromptFlags"] += 1
        self.details.append({"code": "PromptFlags", "param": prompt[:200], "account": main, "at": now})

    def record_video(self, task: Task) -> None:
        """Record a created task."""
        self.totals["tasks"] += 1
        self.videos.append(task)

    def record_violation(self, error: RefusedError, main: str, now: float) -> None:
        """Record a call that breaks upstream's rules."""
        self.violations[error.code] += 1
        self.details.append({"code": error.code, "param": error.param, "account": main, "at": now})

    def view(self, now: float) -> dict[str, Any]:
        """Return the ledger: totals, violations, image calls and tasks with what each cost.

        `cost` is in thousandths of `currency`; null = the price is not published.
        """
        videos = [
            {
                "id": task.id,
                "account": task.main,
                "model": task.order.model,
                "prompt": task.order.prompt,
                "safety_identifier": task.order.safety_identifier,
                "status": task.status(now),
                "tokens": task.tokens if task.status(now) == "succeeded" else 0,
                "currency": currency_of(task.order.public),
                "cost": video_cost(task.order, task.tokens) if task.status(now) == "succeeded" else 0,
                "at": task.created_at,
            }
            for task in self.videos
        ]
        return {
            "totals": {**self.totals, "tokens": sum(video["tokens"] for video in videos)},
            "violations": dict(self.violations),
            "details": list(self.details),
            "images": list(self.images),
            "videos": videos,
        }


class ArkState:
    """Main accounts by the hash of their name, the ledger, and the faults that prompts have used up."""

    def __init__(self, options: Options, kept: StateFile | None = None) -> None:
        self.options = options
        self._kept = kept
        self._begin()
        for digest, task in kept.load_tasks() if kept else []:
            self.mains.setdefault(digest, MainAccount(task.main)).tasks[task.id] = task
            self.ledger.record_video(task)

    def clear(self) -> None:
        """Forget everything."""
        self._begin()
        if self._kept is not None:
            self._kept.clear("tasks")

    def _begin(self) -> None:
        self.mains: OrderedDict[str, MainAccount] = OrderedDict()
        self.ledger = ArkLedger()
        self.lost = LostAnswers()
        self._used_faults: set[tuple[str, str]] = set()

    def main_of(self, key: str) -> MainAccount:
        """Return the main account of a key."""
        name = key.partition(".")[0]
        digest = digest_of(name)
        main = self.mains.get(digest)
        if main is None:
            main = self.mains[digest] = MainAccount(name)
            while len(self.mains) > KEEP:
                self.mains.popitem(last=False)
        if main.name != name:  # of an earlier process, which kept only the hash
            main.name = name
            for task in main.tasks.values():
                task.main = name
        return main

    def cancel(self, task: Task, now: float) -> None:
        """Cancel a task that waits."""
        task.cancelled_at = now
        self._save(task)

    def remove(self, main: MainAccount, task: Task) -> None:
        """Remove a task that has ended."""
        del main.tasks[task.id]
        if self._kept is not None:
            self._kept.remove_task(task)

    def _save(self, task: Task) -> None:
        if self._kept is not None:
            self._kept.save_task(task, digest_of(task.main))

    def create_task(
        self,
        main: MainAccount,
        order: VideoOrder,
        script: Script,
        now: float,
        *,
        key_words: frozenset[str] = frozenset(),
        failure: str = "",
        life: float | None = None,
    ) -> Task:
        """Create a task. More tasks of a model than may run at once wait for each other."""
        seconds = self.options.seconds if script.seconds is None else script.seconds
        others, most = main.places(order, key_words, now)
        waiting = sorted(task.finish_at for task in others)
        start = waiting[-most] if len(waiting) >= most else now
        start = max(start, now) + script.queue
        task = Task(
            main=main.name,
            order=order,
            script=script,
            created_at=now,
            start_at=start,
            finish_at=float("inf") if script.hang else start + seconds,
            failure=failure,
            life=life,
            clip_seconds=_CLIP_SECONDS * order.clips,
        )
        main.tasks[task.id] = task
        self._forget_old(main, now)
        self.ledger.record_video(task)
        self._save(task)
        return task

    def _forget_old(self, main: MainAccount, now: float) -> None:
        while main.tasks:
            oldest = next(iter(main.tasks.values()))
            if len(main.tasks) <= KEEP and oldest.created_at > now - _KEPT_SECONDS:
                return
            main.tasks.popitem(last=False)

    def take_fault(self, prompt: str, kinds: tuple[str, ...]) -> str:
        """Return the first of these faults that the prompt has not used up."""
        for kind in kinds:
            if (prompt, kind) not in self._used_faults:
                self._used_faults.add((prompt, kind))
                return kind
        return ""
