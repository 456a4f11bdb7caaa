"""Callbacks of tasks: a POST to the client's address at each change of state, without a signature."""

import asyncio
import contextlib
import time

import httpx

from worker.sandbox.ark.tasks import Task

_ANSWER_SECONDS = 5.0
_MORE_TRIES = 3


class Callbacks:
    """Sends the callbacks of tasks in the background. Stop ends those that are still to come."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def watch(self, task: Task, *, twice: bool = False) -> None:
        """Report the changes of the task, if its client wants that. `twice` = each of them two times."""
        if task.order.callback_url:
            running = asyncio.get_running_loop().create_task(self._report(task, twice=twice))
            self._running.add(running)
            running.add_done_callback(self._running.discard)

    def stop(self) -> None:
        """End all callbacks."""
        for running in self._running:
            running.cancel()

    async def _report(self, task: Task, *, twice: bool) -> None:
        reported = ""
        async with httpx.AsyncClient(timeout=_ANSWER_SECONDS, trust_env=False) as client:
            for moment in [task.created_at, *task.moments()]:
                if moment == float("inf"):
                    return
                await asyncio.sleep(max(moment - time.time(), 0.0) + 0.01)
                status = task.status(time.time())
                if status == "cancelled":
                    return
                if status != reported:
                    reported = status
                    for _ in range(1 + twice):
                        await self._post(client, task, tries=1 + _MORE_TRIES * (status in {"succeeded", "failed"}))

    @staticmethod
    async def _post(client: httpx.AsyncClient, task: Task, *, tries: int) -> None:
        for _ in range(tries):
            with contextlib.suppress(httpx.HTTPError):
                await client.post(task.order.callback_url, json=task.view(time.time(), echoes=True))
                return
