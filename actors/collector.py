"""Python's cycle collector, for processes that hold a hundred thousand objects for long."""

import gc

NEW_OBJECTS = 50_000
"""Made and not yet freed before the youngest are looked at; Python's own figure is 700."""


def relax_collector() -> None:
    """Looks for cycles rarely. Entities and records are freed by their counts; walking all of them every few hundred
    messages took more than half of a host's time (149 against 56 microseconds a durable turn).
    """
    gc.set_threshold(NEW_OBJECTS, 50, 1_000)
