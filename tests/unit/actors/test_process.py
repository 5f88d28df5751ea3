import logging

from actors.process import prepare_process


def test_process__logs_of_others_only_what_is_wrong() -> None:
    """At INFO an HTTP client writes a provider's status line, which may repeat a key."""
    root, ours = logging.getLogger(), logging.getLogger("runtime")
    before = root.level, ours.level, list(root.handlers)
    root.handlers.clear()
    try:
        prepare_process()
        assert not logging.getLogger("httpx2").isEnabledFor(logging.INFO)
        assert not logging.getLogger("openai").isEnabledFor(logging.INFO)
        assert logging.getLogger("runtime.entity.host").isEnabledFor(logging.INFO)
    finally:
        root.handlers[:] = before[2]
        root.setLevel(before[0])
        ours.setLevel(before[1])
