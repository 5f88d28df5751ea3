"""The ledger as arithmetic: balances are computed from the calls whenever they are asked for.

It says what the real books must answer, in as few rules as possible, and forgets everything with its process.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from runtime.entity.journal import BeginRun
from runtime.errors import CeilingReachedError, ConflictError, NotEnoughCreditsError, NotFoundError
from runtime.ids import BlobId, CallId, ProjectId, RunId, UserId
from runtime.ledger.money import Tariff
from runtime.ledger.port import (
    Balance,
    CallRow,
    CallState,
    Hold,
    Identity,
    Meter,
    Mismatch,
    NewToken,
    Receipt,
    SealedKey,
)


@dataclass(slots=True, kw_only=True)
class _Call:
    hold: Hold
    user: UserId
    begin: BeginRun | None
    bound_pusd: int
    hold_ucredits: int
    at: datetime
    state: CallState = "held"
    usage: Meter | None = None


class MemoryLedger:
    """Implements `runtime.ledger.port.Ledger` in one process, for tests. Nothing of it is on any disk."""

    def __init__(
        self,
        tariff: Tariff,
        initial_free_ucredits: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tariff = tariff
        self._initial_free_ucredits = initial_free_ucredits
        self._clock = clock
        self._admins: dict[UserId, bool] = {}
        self._runs: dict[RunId, BeginRun] = {}
        self._ended: dict[RunId, str] = {}
        self._ceilings: dict[ProjectId, int] = {}
        self._calls: dict[CallId, _Call] = {}
        self._tokens: dict[str, NewToken] = {}
        self._revoked: set[str] = set()
        self._keys: Sequence[SealedKey] = ()
        self._blobs: dict[BlobId, bytes] = {}

    async def open_wallet(self, user: UserId, is_admin: bool) -> Balance:
        self._admins[user] = is_admin
        return self._balance(user)

    async def balance(self, user: UserId) -> Balance:
        return self._balance(user)

    async def hold(self, hold: Hold) -> None:
        begin = self._open_run(hold.run)
        known = self._calls.get(hold.call)
        if known is not None:
            if (known.hold.run, known.hold.model) != (hold.run, hold.model) or known.state == "lost":
                raise ConflictError(f"{hold.call} is another call or was given up.")
            return
        bound_pusd = hold.price.cost_pusd(hold.input_tokens_max, hold.output_tokens_max)
        needed = self._tariff.credits_for(bound_pusd)
        user = begin.user if begin is not None else hold.user
        if begin is not None and begin.project in self._ceilings:
            committed = sum(self._charge(call) for call in self._of_project(begin.project))
            if committed + needed > self._ceilings[begin.project]:
                raise CeilingReachedError(f"{needed} microcredits do not fit under the ceiling.")
        if needed > self._balance(user).free_ucredits:
            raise NotEnoughCreditsError(f"{needed} microcredits are more than are free.")
        self._calls[hold.call] = _Call(
            hold=hold, user=user, begin=begin, bound_pusd=bound_pusd, hold_ucredits=needed, at=self._clock()
        )

    async def meter(self, meter: Meter) -> None:
        call = self._calls.get(meter.call)
        if call is None:
            raise NotFoundError(f"There is no call {meter.call}.")
        if call.usage is not None:
            return
        call.usage = meter
        if call.state == "held":
            call.state = "settled" if call.begin is None or meter.provider_failed else "metered"

    async def receipt(self, project: ProjectId) -> Receipt:
        rows = [(call, self._row(call)) for call in self._of_project(project)]
        charged = [(call, row) for call, row in rows if row.state == "settled" and row.outcome == "ok"]
        excess = [(row, max(0, self._cost(call) - call.bound_pusd)) for call, row in charged]
        shown = [_changed(row, cost_pusd=row.cost_pusd - above) for row, above in excess]
        above_hold = [
            _changed(row, cost_pusd=above, credits_ucredits=0, input_tokens=0, output_tokens=0, outcome="above_hold")
            for row, above in excess
            if above
        ]
        lost = [row for _, row in rows if row.state in ("settled", "lost") and row.outcome != "ok"]
        return Receipt(
            project=project,
            charged=shown,
            losses=[*lost, *above_hold],
            pending=[row for _, row in rows if row.state in ("held", "metered")],
            total_cost_pusd=sum(row.cost_pusd for row in shown),
            total_ucredits=sum(row.credits_ucredits for row in shown),
            refunded_ucredits=0,
        )

    async def add_token(self, token: NewToken) -> None:
        self._tokens.setdefault(token.token_sha256, token)

    async def revoke_token(self, token_sha256: str) -> None:
        if token_sha256 in self._tokens:
            self._revoked.add(token_sha256)

    async def authenticate(self, token_sha256: str) -> Identity | None:
        token = self._tokens.get(token_sha256)
        if token is None or token_sha256 in self._revoked:
            return None
        if token.expires_at is not None and token.expires_at <= self._clock():
            return None
        if token.kind == "task" and (token.run not in self._runs or token.run in self._ended):
            return None
        is_admin = token.kind == "user" and self._admins.get(token.user, False)
        return Identity(user=token.user, is_admin=is_admin, kind=token.kind, run=token.run)

    async def replace_keys(self, keys: Sequence[SealedKey]) -> None:
        self._keys = tuple(keys)

    async def keys(self, provider: str) -> Sequence[SealedKey]:
        return [key for key in self._keys if key.provider == provider]

    async def put_blob(self, data: bytes) -> BlobId:
        blob = BlobId(hashlib.sha256(data).hexdigest())
        self._blobs[blob] = data
        return blob

    async def get_blob(self, blob: BlobId) -> bytes:
        if blob not in self._blobs:
            raise NotFoundError(f"There is no file {blob}.")
        return self._blobs[blob]

    async def mismatches(self) -> Sequence[Mismatch]:
        """Nothing is stored twice here, so nothing can disagree."""
        return []

    def check_runs(self, begin: Sequence[BeginRun], settle: Sequence[RunId], abandon: Sequence[RunId]) -> None:
        """Raises what `end_runs` would, before anything changes."""
        for run in begin:
            if self._runs.get(run.run, run) != run or run.run in self._ended:
                raise ConflictError(f"{run.run} was begun before.")
        begun = {run.run for run in begin} | self._runs.keys()
        for wanted, runs in (("settled", settle), ("abandoned", abandon)):
            for run_id in runs:
                if run_id not in begun:
                    raise NotFoundError(f"There is no run {run_id}.")
                if self._ended.get(run_id, wanted) != wanted:
                    raise ConflictError(f"{run_id} is {self._ended[run_id]}.")

    def move_runs(self, begin: Sequence[BeginRun], settle: Sequence[RunId], abandon: Sequence[RunId]) -> None:
        """What an append does to its runs, once nothing can refuse it."""
        self._runs.update({run.run: run for run in begin})
        for run in settle:
            self._end(run, "settled")
        for run in abandon:
            self._end(run, "abandoned")

    def set_ceiling(self, project: ProjectId, ceiling_ucredits: int) -> None:
        self._ceilings[project] = ceiling_ucredits

    def _end(self, run: RunId, state: str) -> None:
        self._ended[run] = state
        for call in self._calls.values():
            if call.hold.run == run and call.state in ("held", "metered"):
                call.state = "settled" if state == "settled" and call.state == "metered" else "lost"

    def _open_run(self, run: RunId | None) -> BeginRun | None:
        if run is None:
            return None
        if run not in self._runs or run in self._ended:
            raise ConflictError(f"The run {run} is not open.")
        return self._runs[run]

    def _of_project(self, project: ProjectId) -> list[_Call]:
        return [call for call in self._calls.values() if call.begin is not None and call.begin.project == project]

    def _balance(self, user: UserId) -> Balance:
        calls = [call for call in self._calls.values() if call.user == user]
        granted = self._initial_free_ucredits if user in self._admins else 0
        return Balance(
            balance_ucredits=granted - sum(self._charge(call) for call in calls if call.state == "settled"),
            held_ucredits=sum(self._charge(call) for call in calls if call.state in ("held", "metered")),
        )

    def _cost(self, call: _Call) -> int:
        if call.usage is None:
            return call.bound_pusd
        if call.usage.provider_failed:
            return 0
        return call.hold.price.cost_pusd(call.usage.input_tokens, call.usage.output_tokens)

    def _charge(self, call: _Call) -> int:
        if call.state == "lost":
            return 0
        return min(call.hold_ucredits, self._tariff.credits_for(self._cost(call)))

    def _row(self, call: _Call) -> CallRow:
        failed = call.usage is not None and call.usage.provider_failed
        return CallRow(
            call=call.hold.call,
            run=call.hold.run,
            task=call.begin.task if call.begin is not None else "",
            attempt=call.begin.attempt if call.begin is not None else 0,
            task_type=call.hold.task_type,
            provider=call.hold.provider,
            model=call.hold.model,
            state=call.state,
            input_tokens=0 if failed else call.usage.input_tokens if call.usage else call.hold.input_tokens_max,
            output_tokens=0 if failed else call.usage.output_tokens if call.usage else call.hold.output_tokens_max,
            cost_pusd=self._cost(call),
            credits_ucredits=self._charge(call),
            outcome=_outcome(call),
            at=call.at,
        )


def _outcome(call: _Call) -> str:
    if call.usage is not None and call.usage.provider_failed:
        return "provider_failed"
    if call.state == "lost":
        return "interrupted" if call.usage is not None else "interrupted_unknown"
    return "ok" if call.usage is not None else "pending"


def _changed(row: CallRow, **changes: Any) -> CallRow:
    return replace(row, **changes)
