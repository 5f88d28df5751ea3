"""Orders of credits on the store. The rules are in `orders`; here they meet the database."""

from runtime.ledger import orders
from runtime.ledger.port import NewOrder, Order, OrderId, OrderRefund, Payment
from runtime.ledger.wallet_book import WalletBook


class OrderBook(WalletBook):
    async def open_order(self, order: NewOrder) -> Order:
        return await self._database.write(lambda tx: orders.open_order(tx, order, self._clock()))

    async def order(self, order: OrderId) -> Order | None:
        rows = await self._rows("select_order", {"key": order})
        return orders.order_of(rows[0]) if rows else None

    async def complete_order(self, payment: Payment) -> Order:
        bonus = self._referral_ucredits
        return await self._database.write(lambda tx: orders.complete_order(tx, payment, bonus, self._clock()))

    async def refund_order(self, refund: OrderRefund) -> int:
        return await self._database.write(lambda tx: orders.refund_order(tx, refund, self._clock()))

    async def fail_order(self, order: OrderId, provider: str) -> Order:
        return await self._database.write(lambda tx: orders.fail_order(tx, order, provider))
