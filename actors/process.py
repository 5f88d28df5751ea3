"""What a process of ours sets for itself before its actor begins."""

import ctypes
import gc
import logging
import signal

NEW_OBJECTS = 50_000
"""Made and not yet freed before the youngest are looked at; Python's own figure is 700."""


def ends_at_once() -> None:
    """SIGTERM ends the process now: for one that has nothing to lose, where Ray's own handler waits for its tasks.

    Through the C library, because Python lets a process's first thread alone say so, and an actor is made in another.
    """
    ctypes.CDLL(None).signal(int(signal.SIGTERM), 0)


OURS = ("runtime", "actors", "serve_apps", "cluster")


def prepare_process(*, keeps_much: bool = True) -> None:
    """Logs to stderr with the time, and looks for cycles rarely.

    Of others' code only warnings are logged: at INFO an HTTP client tells what a provider says in its status line,
    which may repeat the key it was sent.

    Entities and records are freed by their counts; walking all of them every few hundred messages took more than half
    of a host's time (149 against 56 microseconds a durable turn). A process that keeps little looks at everything more
    often: what is left in cycles would pile up there until one long look stopped every call.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    gc.set_threshold(NEW_OBJECTS, *((50, 1_000) if keeps_much else (5, 5)))
