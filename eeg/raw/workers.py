"""Work in all cores at once, by processes: MNE's filters run in Python, one thread at a time."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from eeg import UserError


def in_processes(
    work: Callable, tasks: Sequence[tuple], jobs: int | None = None
) -> Iterator[tuple[tuple, Any]]:
    """Yield (task, work(*task), or the ValueError that it raised) as each is done.

    Give the longest tasks first, so that all cores are busy to the end. The processes end at once
    when the caller leaves, is interrupted, or is killed.
    """
    jobs = min(jobs or os.cpu_count() or 1, len(tasks))
    if jobs <= 1:  # here: a new process takes a second to import MNE
        yield from ((task, _try(work, task)) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # threads of this process cannot be copied
    heard, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, context, initializer=_follow, initargs=(heard,))
    try:
        futures = {pool.submit(work, *task): task for task in tasks}
        for future in as_completed(futures):
            bad = future.exception()
            yield futures[future], bad if isinstance(bad, ValueError) else future.result()
    except BrokenProcessPool:
        raise UserError(
            "a process that filtered a recording was killed, as happens when memory runs out; "
            f"what is finished was kept; use fewer processes with --jobs {max(1, jobs // 2)}"
        ) from None
    finally:
        held.close()
        pool.shutdown(cancel_futures=True)
        heard.close()


def _try(work, task):
    try:
        return work(*task)
    except ValueError as e:
        return e


def _follow(heard):
    """End with the caller: its end of the pipe closes when it leaves, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller

    def wait():
        try:
            heard.recv()
        except EOFError:
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
