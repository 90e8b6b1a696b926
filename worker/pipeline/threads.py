"""Threads that end, whatever strikes the thread that waits for them.

A soft time limit and Ctrl-C raise an exception anywhere in the calling thread. concurrent.futures is
not made for that: struck inside `submit` it forgets a thread that it has started, and struck inside
`wait` it keeps locks that its threads need. Here the calling thread shares nothing with the others but
`SimpleQueue`, whose methods are single steps to Python, and every thread runs before there is work.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, Self, TypeVar

N_WORKING = max(2, min(8, os.cpu_count() or 1))
"""Threads of a pool that computes."""

_WAKE_S = 0.5
"""How long a signal may go unnoticed while the calling thread waits."""

_Result = TypeVar("_Result")


class Crew(Generic[_Result]):
    """Several pools of threads that hand their results to one calling thread.

    As a context it is stopped at the end, however the end comes.
    """

    def __init__(self) -> None:
        self._results: SimpleQueue[_Result | BaseException] = SimpleQueue()
        self._pools: list[Pool[_Result]] = []
        self._stopping = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def pool(self, name: str, n_threads: int) -> Pool[_Result]:
        """A pool of this crew. Only before there is work."""
        tasks: SimpleQueue[Callable[[], _Result | None] | None] = SimpleQueue()
        pool = Pool(tasks)
        self._pools.append(pool)
        for number in range(n_threads):
            thread = threading.Thread(target=self._work, args=(tasks,), name=f"deconvoy-{name}-{number}")
            thread.start()
            pool.threads.append(thread)
        return pool

    def result(self) -> _Result:
        """Wait for the next result of any pool. Raises what a task has raised."""
        while True:
            # A signal that comes just before the lock is taken does not break the wait: so look up at times.
            with suppress(Empty):
                result = self._results.get(timeout=_WAKE_S)
                break
        if isinstance(result, BaseException):
            raise result
        return result

    def results_so_far(self) -> Iterator[_Result]:
        """The results that need no waiting. Raises what a task has raised."""
        while not self._results.empty():
            yield self.result()

    def stop(self) -> None:
        """Drop all tasks that have not begun, and return when no thread is left."""
        self._stopping = True
        for pool in self._pools:
            # One more than threads: one that was struck while it started is not in the list, but ends too.
            for _ in range(len(pool.threads) + 1):
                pool.tasks.put(None)
        for pool in self._pools:
            for thread in pool.threads:
                thread.join()

    def _work(self, tasks: SimpleQueue[Callable[[], _Result | None] | None]) -> None:
        # No name is bound to a task here: it would keep the task's data while the thread waits for another.
        while self._do(tasks.get()):
            pass

    def _do(self, task: Callable[[], _Result | None] | None) -> bool:
        """Do a task, unless there is none any more."""
        if task is None:
            return False
        if self._stopping:
            return True
        try:
            result = task()
        except BaseException as error:  # noqa: BLE001 (handed to the calling thread, which raises it)
            self._results.put(error)
        else:
            if result is not None:
                self._results.put(result)
        return True


class Pool(Generic[_Result]):
    """Some threads with one queue of tasks, taken in order."""

    def __init__(self, tasks: SimpleQueue[Callable[[], _Result | None] | None]) -> None:
        self.tasks = tasks
        self.threads: list[threading.Thread] = []

    def submit(self, task: Callable[[], _Result | None]) -> None:
        """Have `task` done; what it returns, unless None, is a result of the crew. Any thread may ask."""
        self.tasks.put(task)
