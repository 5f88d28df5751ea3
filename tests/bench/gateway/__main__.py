"""`make bench NAME=gateway`: our gateway with full metering beside LiteLLM and Portkey, which meter nothing.

All stand in front of the same mock upstream, one gateway process each, and take turns within a round under the same
load, which a process of its own makes. `upstream` is the load without a gateway: what a gateway adds is counted from
there. One JSON line a figure, each the median of the rounds. The peers are installed on first use, into the user's
cache folder. `--seconds` and `--rounds` make a run smaller; `--without litellm,portkey` leaves a peer out.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median

from cluster.ports import free_ports
from tests.bench.figures import figure as make_figure
from tests.bench.gateway import ours
from tests.bench.gateway.load import Load, Seen
from tests.bench.gateway.ours import Ours
from tests.bench.gateway.peers import LiteLLM, Peer, Portkey, cache_dir, missing_tools
from tests.bench.gateway.running import Running, child
from tests.bench.gateway.upstream import PROMPT_TOKENS, TOKENS
from tests.bench.load import quantile

ROOT = Path(__file__).parents[3]
DELAY_S = 0.05
CALLERS = (1, 16, 64)
MANY = max(CALLERS)
DIRECT = "upstream"
OURS = ours.NAME
UCREDITS_EACH = (PROMPT_TOKENS * 150_000 + TOKENS * 600_000) * 3 // 2 // 10_000
"""Of a call of gpt-4o-mini: picodollars a token, the markup of 1.5, and 10,000 picodollars a microcredit."""
ADDED_MS_MAX = 1.0
LITELLM_TIMES = 10.0
TTFT_SHARE_MAX = 0.5
MERGED_SHARE_MAX = 0.001
TOKEN_DELAY_MS_MAX = 2.0


class Figures:
    """Each round's values; `tell` prints a median beside what it is compared with."""

    def __init__(self) -> None:
        self.all_hold = True
        self._values: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, name: str, figure: str, value: float) -> None:
        self._values[name, figure].append(value)

    def of(self, name: str, figure: str) -> float:
        return median(self._values[name, figure])

    def added(self, name: str, figure: str) -> float:
        """To what the upstream alone takes, round by round."""
        pairs = zip(self._values[name, figure], self._values[DIRECT, figure], strict=True)
        return median(value - direct for value, direct in pairs)

    def tell(
        self,
        figure: str,
        value: float,
        unit: str,
        *,
        against: str = "",
        ratio: float | None = None,
        target: str = "none",
        holds: bool = True,
    ) -> None:
        self.all_hold &= holds
        ratio = None if ratio is None else round(ratio, 3)
        line = make_figure(
            "gateway", figure, round(value, 3), unit, against=against, ratio=ratio, target=target, holds=holds
        )
        print(json.dumps(line), flush=True)


def main(arguments: Sequence[str]) -> int:
    """Prints every figure; 0 when all hold."""
    given = _given(arguments)
    without = set(given.without.split(","))
    peers: list[Peer] = [peer for peer in (Portkey(), LiteLLM()) if peer.name not in without]
    if any(peer.name == Portkey.name for peer in peers) and (missing := missing_tools()):
        print(f"Portkey needs {' and '.join(missing)}: install Node.js, or give --without portkey.", file=sys.stderr)
        return 2
    for peer in peers:
        peer.install(cache_dir())
    folder = Path(tempfile.mkdtemp(prefix="mb-bench-gateway-"))
    figures = Figures()
    try:
        asyncio.run(_measure(given.rounds, given.seconds, peers, folder, figures))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if figures.all_hold else 1


async def _measure(rounds: int, seconds: float, peers: Sequence[Peer], folder: Path, figures: Figures) -> None:
    async with _gateways(peers, folder) as (gateways, account):
        before = await account.balance_ucredits()
        paid = 0
        for number in range(rounds):
            # Who goes first changes: what the machine does beside falls on each in turn.
            for gateway in [*gateways[number % len(gateways) :], *gateways[: number % len(gateways)]]:
                calls = await _round(gateway, seconds, figures)
                paid += calls if gateway.name == OURS else 0
                print(f"round {number + 1}: {gateway.name}", file=sys.stderr, flush=True)
        spent = before - await account.balance_ucredits()
        mismatches = await account.mismatches()
        for _ in range(rounds):
            # Last, because these calls have another price.
            for gateway in gateways:
                if "instant" in gateway.models:
                    seen = await _loaded(gateway.load("instant", MANY, seconds))
                    figures.add(gateway.name, "ceiling", len(seen.latency_ms) / seen.seconds)
    names = [gateway.name for gateway in gateways if gateway.name not in (DIRECT, OURS)]
    _tell(figures, names)
    figures.tell(
        "credits charged for the calls that were answered",
        spent / 1e6,
        "credits",
        against=f"{paid:,} calls of {UCREDITS_EACH / 1e6:g} credits; {len(mismatches)} mismatches {mismatches[:1]}",
        ratio=spent / (paid * UCREDITS_EACH),
        target="1.0, no mismatch",
        holds=spent == paid * UCREDITS_EACH and not mismatches,
    )


async def _round(gateway: Running, seconds: float, figures: Figures) -> int:
    """Returns how many calls were answered."""
    answered = 0
    for callers in CALLERS:
        for streamed in (False, True):
            kind = f"{'stream' if streamed else 'whole'} {callers}"
            cpu_s = gateway.cpu_s()
            seen = await _loaded(gateway.load("delayed", callers, seconds, streamed=streamed))
            cpu_s = gateway.cpu_s() - cpu_s
            count = len(seen.latency_ms)
            answered += count
            if seen.errors or not count:
                print(f"{gateway.name}, {kind}: {seen.errors} errors: {seen.first_error}", file=sys.stderr, flush=True)
            latency_ms = seen.latency_ms or [float("inf")]
            figures.add(gateway.name, f"{kind} p50", quantile(latency_ms, 0.5))
            figures.add(gateway.name, f"{kind} p95", quantile(latency_ms, 0.95))
            figures.add(gateway.name, f"{kind} rate", count / seen.seconds)
            figures.add(gateway.name, f"{kind} cpu", cpu_s * 1e3 / max(count, 1))
            figures.add(gateway.name, f"{kind} errors", seen.errors)
            if streamed:
                tokens = max(count * TOKENS, 1)
                figures.add(gateway.name, f"{kind} lost", seen.lost)
                figures.add(gateway.name, f"{kind} merged", seen.merged / tokens)
                delay_ms = seen.token_delay_ms or [float("inf")]
                figures.add(gateway.name, f"{kind} delay p50", quantile(delay_ms, 0.5))
                figures.add(gateway.name, f"{kind} delay p99", quantile(delay_ms, 0.99))
    figures.add(gateway.name, "memory", gateway.memory_bytes() / (1 << 20))
    return answered


async def _loaded(load: Load) -> Seen:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.gateway.load",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    told, _ = await process.communicate(json.dumps(asdict(load)).encode())
    return Seen(**json.loads(told))


@asynccontextmanager
async def _gateways(peers: Sequence[Peer], folder: Path) -> AsyncIterator[tuple[list[Running], Ours]]:
    """All of them, running. The upstream comes first, as a gateway that adds nothing."""
    delayed, instant, port, dashboard, *peer_ports = free_ports(4 + len(peers))
    async with AsyncExitStack() as stack:
        for upstream, delay_s in ((instant, 0.0), (delayed, DELAY_S)):
            command = [sys.executable, "-m", "tests.bench.gateway.upstream", str(upstream), str(delay_s)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            process = await stack.enter_async_context(child(command, folder / "upstream.log", environment))
        direct = Running.of_child(DIRECT, delayed, process.pid, {}, delayed="gpt-4o-mini")
        gateways = [direct]
        account = await stack.enter_async_context(ours.start(folder, port, dashboard, delayed, instant))
        gateways.append(account.running)
        for peer, peer_port in zip(peers, peer_ports, strict=True):
            starting = peer.start(cache_dir(), folder, peer_port, delayed, instant)
            gateways.append(await stack.enter_async_context(starting))
        yield gateways, account


def _tell(figures: Figures, peers: Sequence[str]) -> None:
    of, added, tell = figures.of, figures.added, figures.tell
    everyone = (OURS, *peers)

    def beside(figure: str, unit: str) -> str:
        return ", ".join(f"{peer} {of(peer, figure):.3g} {unit}" for peer in peers)

    def added_beside(figure: str) -> str:
        return ", ".join(f"{peer} {added(peer, figure):.3g} ms" for peer in peers)

    for callers in CALLERS:
        figure = f"whole {callers} cpu"
        judged = callers == MANY and "portkey" in peers
        tell(
            f"CPU of a call over all processes, {callers} callers",
            of(OURS, figure),
            "ms",
            against=beside(figure, "ms"),
            ratio=of(OURS, figure) / of("portkey", figure) if "portkey" in peers else None,
            target="<= 1.0 of portkey" if judged else "none",
            holds=not judged or of(OURS, figure) <= of("portkey", figure),
        )
    rate = f"whole {MANY} rate"
    for peer, times in (("portkey", 1.0), ("litellm", LITELLM_TIMES)):
        if peer in peers:
            ratio = of(OURS, rate) / of(peer, rate)
            tell(
                f"calls answered, {MANY} callers, beside {peer}",
                of(OURS, rate),
                "1/s",
                against=f"{peer} {of(peer, rate):.0f}/s; without a gateway {of(DIRECT, rate):.0f}/s",
                ratio=ratio,
                target=f">= {times:g} times",
                holds=ratio >= times,
            )
    for callers in CALLERS:
        for share in ("p50", "p95"):
            figure = f"whole {callers} {share}"
            judged = (callers, share) == (1, "p50") and "portkey" in peers
            value = added(OURS, figure)
            tell(
                f"added latency {share}, {callers} callers",
                value,
                "ms",
                against=added_beside(figure),
                target=f"<= portkey + {ADDED_MS_MAX:g} ms" if judged else "none",
                holds=not judged or value <= added("portkey", figure) + ADDED_MS_MAX,
            )
    for callers in CALLERS:
        figure = f"stream {callers} p50"
        value = added(OURS, figure)
        judged = "litellm" in peers
        tell(
            f"added time to the first token, {callers} streams",
            value,
            "ms",
            against=added_beside(figure),
            ratio=value / added("litellm", figure) if judged else None,
            target=f"<= {TTFT_SHARE_MAX:g} of litellm" if judged else "none",
            holds=not judged or value <= TTFT_SHARE_MAX * added("litellm", figure),
        )
        _tell_tokens(figures, callers, everyone)
    tell("calls answered without delay, 64 callers", of(OURS, "ceiling"), "1/s", against=beside("ceiling", "/s"))
    tell("memory of all processes", of(OURS, "memory"), "MiB", against=beside("memory", "MiB"))
    errors = sum(of(OURS, f"{kind} {callers} errors") for kind in ("whole", "stream") for callers in CALLERS)
    tell("calls that failed", errors, "", target="0", holds=errors == 0)


def _tell_tokens(figures: Figures, callers: int, everyone: Sequence[str]) -> None:
    """Lost must be none at any load; merged and delayed are judged where nothing waits for a core."""
    of = figures.of
    kind = f"stream {callers}"
    others = [DIRECT, *(name for name in everyone if name != OURS)]
    lost, merged = of(OURS, f"{kind} lost"), of(OURS, f"{kind} merged")
    delay, direct = of(OURS, f"{kind} delay p50"), of(DIRECT, f"{kind} delay p50")
    judged = callers == min(CALLERS)
    figures.tell(
        f"tokens lost, {callers} streams",
        lost,
        "",
        against=", ".join(f"{name} {of(name, f'{kind} lost'):g}" for name in others),
        target="0",
        holds=lost == 0,
    )
    figures.tell(
        f"tokens merged with an earlier one, {callers} streams",
        merged,
        "share",
        against=", ".join(f"{name} {of(name, f'{kind} merged'):.3g}" for name in others),
        target=f"<= upstream + {MERGED_SHARE_MAX:g}" if judged else "none",
        holds=not judged or merged <= of(DIRECT, f"{kind} merged") + MERGED_SHARE_MAX,
    )
    figures.tell(
        f"a token's delay p50, {callers} streams",
        delay,
        "ms",
        against=", ".join(
            f"{name} {of(name, f'{kind} delay p50'):.3g} (p99 {of(name, f'{kind} delay p99'):.3g})" for name in others
        )
        + f"; ours p99 {of(OURS, f'{kind} delay p99'):.3g}",
        target=f"<= upstream + {TOKEN_DELAY_MS_MAX:g} ms" if judged else "none",
        holds=not judged or delay <= direct + TOKEN_DELAY_MS_MAX,
    )


def _given(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.bench.gateway")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", default="")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
