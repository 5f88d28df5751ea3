"""Finding and ending the processes of an instance, by pid and never by name.

Ray's processes rename themselves, and some overwrite their environment in doing so. So a process is ours if it
carries the instance's mark in its environment, if it has no environment left and stands in the instance's Ray folder,
or if it descends from one of these.
"""

import os
import time

import psutil

from cluster.instance import MARK, Instance
from runtime.errors import UnavailableError


def owned(instance: Instance) -> list[psutil.Process]:
    """Living processes of the instance, without the caller and the caller's ancestors."""
    excluded = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    everything = {process.pid: process for process in psutil.process_iter(["ppid"])}
    children: dict[int, list[int]] = {}
    for process in everything.values():
        children.setdefault(process.info["ppid"], []).append(process.pid)
    found: set[int] = set()
    waiting = [pid for pid, process in everything.items() if _is_marked(process, instance)]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return [everything[pid] for pid in sorted(found - excluded) if _is_alive(everything[pid])]


def end_all(instance: Instance, timeout_s: float = 20.0) -> int:
    """Kills (-9) every process of the instance and returns how many there were.

    Raises UnavailableError if one is still there after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    ended: set[int] = set()
    while processes := owned(instance):
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in processes)
            raise UnavailableError(f"These processes could not be ended: {pids}.", f"End them with `kill -9 {pids}`.")
        for process in processes:
            ended.add(process.pid)
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(processes, timeout=1.0)
    return len(ended)


def _is_marked(process: psutil.Process, instance: Instance) -> bool:
    try:
        environment = process.environ()
        if "PATH" in environment:
            return environment.get(MARK) == instance.id
        return process.cwd().startswith(instance.temp_prefix)
    except (psutil.Error, OSError):
        return False


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
