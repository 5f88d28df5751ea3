"""The service's status on one screen of 100 by 30 characters, and the same kept up to date."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.status import ServiceStatus
from cluster.wire import AdminStatus
from runtime.entity.vitals import HostVitals, KeyPoolVitals, Quarantined, StoreVitals

WATCH_EVERY_S = 1.0
RATES_OVER = 5
"""Refreshes."""

_WIDTH_PIPED = 100
_QUARANTINED_MAX = 3
_HOSTS_MIN = 3
_OTHER_LINES = 24
"""What a screen needs for everything but the rows of hosts."""


def show(console: Console, status: ServiceStatus) -> None:
    """Prints it once. A file gets every row; a terminal, what fits."""
    if not status.running:
        console.print("[red]down[/]: start it with `masterbuilder up`", highlight=False)
        return
    if console.is_terminal:
        console.print(screen(status, None, console.height))
    else:
        Console(file=console.file, width=_WIDTH_PIPED).print(screen(status, None, None))


def watch(
    console: Console, take: Callable[[], ServiceStatus], pause: Callable[[float], None] = time.sleep
) -> ServiceStatus | None:
    """Refreshes the screen in place every second until Ctrl-C. Returns the last status.

    Rates are means of some seconds: hosts are heard of every second or so, not at the moment of the refresh.
    """
    seen: deque[ServiceStatus] = deque(maxlen=RATES_OVER + 1)
    try:
        with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
            while True:
                seen.append(take())
                before = seen[0] if len(seen) > 1 else None
                live.update(screen(seen[-1], before, console.height), refresh=True)
                pause(WATCH_EVERY_S)
    except KeyboardInterrupt:
        return seen[-1] if seen else None


def screen(now: ServiceStatus, before: ServiceStatus | None, height: int | None) -> RenderableType:
    """`before` is an earlier status of the same service: with it there are rates. `height` bounds the lists."""
    parts: list[RenderableType] = [_summary(now, before)]
    if now.parts and now.parts.hosts:
        rows_max = len(now.parts.hosts) if height is None else max(_HOSTS_MIN, height - _OTHER_LINES)
        parts += ["", _hosts(now.parts.hosts, _turns_per_s(now, before), rows_max)]
    if found := now.quarantined:
        parts += ["", *_quarantine(found, len(found) if height is None else _QUARANTINED_MAX)]
    return Group(*parts)


def _summary(now: ServiceStatus, before: ServiceStatus | None) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, line in _lines(now, before):
        table.add_row(name, line if isinstance(line, Text) else Text(line))
    return table


def _lines(now: ServiceStatus, before: ServiceStatus | None) -> Iterator[tuple[str, str | Text]]:
    restarts = f", restarted {_count(now.restarts, 'time')}" if now.restarts else ""
    processes = f"{_count(now.processes, 'process')}, {_size(now.memory_bytes)}"
    yield "state", Text.assemble((now.state, "green" if now.healthy else "red"), f"{restarts}; {processes}")
    if now.detail:
        yield "detail", Text(now.detail, "yellow")
    yield "API", now.url
    if now.proxy == "ray serve":
        yield "proxy", Text("Ray Serve's own, which is slow: `masterbuilder doctor` says more", "yellow")
    if now.dashboard_url:
        yield "dashboard", now.dashboard_url
    yield "provider", _one_line(_providers(now.provider, now.parts.key_pools if now.parts else ()))
    if now.projects:
        yield "projects", f"{now.projects.total:,}, {now.projects.unfinished:,} not finished"
    if now.me:
        yield "balance", f"{now.me.balance_credits} credits, {now.me.held_credits} held"
    if now.parts:
        yield from _part_lines(now.parts, now, before)
    if now.silent:
        yield "silent", Text(", ".join(now.silent), "red")


def _part_lines(
    parts: AdminStatus, now: ServiceStatus, before: ServiceStatus | None
) -> Iterator[tuple[str, str | Text]]:
    if pool := parts.implementers:
        first = next((f"; {each.project[:8]} is next" for each in pool.waiting if each.work == "edit"), "")
        checking = f", {_count(pool.checking, 'check')} running" if pool.checking else ""
        queued = f"{_count(pool.queued, 'task')} queued"
        yield "workers", f"{pool.workers:,}, {pool.busy:,} busy{checking}, {queued}{first}"
    if store := parts.store:
        yield "store", f"{store.entities:,} entities, {store.events:,} events; {_writes(store, now, before)}"
        stale = Text(f"{_count(store.refused_stale, 'stale append')} refused", "yellow" if store.refused_stale else "")
        yield "", Text.assemble(f"{_size(store.database_bytes)} on disk, {_size(store.log_bytes)} of log; ", stale)
    moving = f"{_count(parts.moving, 'partition')} without a host"
    yield "map", Text.assemble(f"version {parts.map_version}, ", (moving, "yellow" if parts.moving else ""))


def _providers(named: str, pools: Sequence[KeyPoolVitals]) -> str:
    if not pools:
        return named or "unknown"
    return "; ".join(
        f"{pool.provider} ({_count(pool.keys, 'key')}, {pool.cooling} cooling, {_count(pool.waiting, 'call')} waiting"
        f"{', refused: ' + ', '.join(pool.refused) if pool.refused else ''})"
        for pool in pools
    )


def _writes(store: StoreVitals, now: ServiceStatus, before: ServiceStatus | None) -> str:
    earlier = before.parts.store if before and before.parts else None
    rate = ""
    if before and earlier and earlier.pid == store.pid:
        rate = f"{_rate(store.writes - earlier.writes, now.at_s - before.at_s)} writes/s, "
    return f"{rate}{store.queued:,} waiting, commit p50 {store.commit_p50_ms:.1f} ms"


def _turns_per_s(now: ServiceStatus, before: ServiceStatus | None) -> dict[str, str]:
    """By incarnation, for those that already lived before: a restarted host counts from zero."""
    if before is None or before.parts is None or now.parts is None:
        return {}
    turns = {host.incarnation: host.turns for host in before.parts.hosts}
    seconds = now.at_s - before.at_s
    return {
        host.incarnation: _rate(host.turns - turns[host.incarnation], seconds)
        for host in now.parts.hosts
        if host.incarnation in turns
    }


def _hosts(hosts: Sequence[HostVitals], rates: dict[str, str], rows_max: int) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("host", no_wrap=True, max_width=32)
    for title in ("partitions", "entities", "working", "queued", "turns/s", "memory"):
        table.add_column(title, justify="right", no_wrap=True)
    shown = sorted(hosts, key=lambda host: host.name)[:rows_max]
    for host in shown:
        table.add_row(Text(host.name), *_host_row([host], rates.get(host.incarnation, "-")))
    if len(hosts) > len(shown):
        table.add_row(f"all {len(hosts)} hosts", *_host_row(hosts, ""))
    return table


def _host_row(hosts: Sequence[HostVitals], turns_per_s: str) -> tuple[str, ...]:
    counts = (
        sum(host.partitions for host in hosts),
        sum(host.residents for host in hosts),
        sum(host.working for host in hosts),
        sum(host.queued for host in hosts),
    )
    return *(f"{count:,}" for count in counts), turns_per_s, _size(sum(host.memory_bytes for host in hosts))


def _quarantine(found: Sequence[Quarantined], shown_max: int) -> Iterator[Text]:
    """Two lines each: what happened, cut to the line, and the command that lifts it, never cut."""
    shown = sorted(found, key=lambda each: each.since, reverse=True)[:shown_max]
    more = f", the newest {len(shown)}" if len(shown) < len(found) else ""
    yield Text(f"quarantine: {len(found)}{more}", "red")
    for each in shown:
        yield _one_line(f"  since {each.since:%Y-%m-%d %H:%M:%S}, {_count(each.failures, 'failure')}: {each.error}")
        yield Text(f"  lift it: masterbuilder pardon {each.entity}")


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f}" if seconds > 0 else "-"


def _count(number: int, noun: str) -> str:
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def _size(size_bytes: int) -> str:
    mebibytes = size_bytes / (1 << 20)
    return f"{mebibytes:,.1f} MiB" if mebibytes < 100 else f"{mebibytes:,.0f} MiB"
