"""Many independent jobs over the cores of one machine, one thread each, with a progress bar."""

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch


def run_in_processes(job: Callable[[Any], None], arguments: Iterable[Any], workers: int, title: str) -> None:
    """Call `job(argument)` for every argument in `workers` fresh processes (0: one per core).

    The first error ends the whole: jobs not yet begun are dropped and the error is raised.
    """
    from tqdm import tqdm

    arguments = list(arguments)
    if not arguments:
        return
    with ProcessPoolExecutor(
        workers or os.cpu_count() or 1, mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads, initargs=(1,),
    ) as pool:  # fmt: skip
        futures = [pool.submit(job, argument) for argument in arguments]
        try:
            for future in tqdm(as_completed(futures), total=len(futures), desc=title, ncols=110):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
