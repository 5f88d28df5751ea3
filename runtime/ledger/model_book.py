"""Prices and catalogue rows on the store."""

from collections.abc import Sequence

from runtime.errors import ConflictError
from runtime.ledger.book import Book
from runtime.ledger.money import Price
from runtime.ledger.port import ModelRow
from runtime.ledger.records import PriceRow, at_us
from runtime.store.transaction import Kind, Transaction, first_as

_PRICES = Kind(name="price", query="select_price", read=first_as(PriceRow))


class ModelBook(Book):
    async def set_prices(self, prices: Sequence[PriceRow]) -> None:
        """Makes these the prices in force. Older ones stay, inactive: calls refer to them.

        Raises ConflictError when a pricing id comes back with other figures; nothing changes then.
        """

        def act(tx: Transaction) -> None:
            for row in prices:
                _keep_price(tx, row)
            tx.execute("activate_prices", pricing_ids=[row.pricing_id for row in prices])

        await self._database.write(act)

    async def models(self) -> Sequence[ModelRow]:
        return [
            ModelRow(
                provider=provider,
                model=model,
                effective_from=at_us(from_us),
                price=Price(
                    pricing_id=pricing_id,
                    input_udollars_per_mtok=put_in,
                    output_udollars_per_mtok=put_out,
                    image_udollars=image,
                ),
                body=body,
            )
            for provider, model, from_us, body, pricing_id, put_in, put_out, image in await self._rows("models", {})
        ]

    async def set_models(self, rows: Sequence[ModelRow]) -> None:
        def act(tx: Transaction) -> None:
            for row in rows:
                _keep_price(
                    tx,
                    PriceRow(
                        pricing_id=row.price.pricing_id,
                        provider=row.provider,
                        model=row.model,
                        input_udollars_per_mtok=row.price.input_udollars_per_mtok,
                        output_udollars_per_mtok=row.price.output_udollars_per_mtok,
                        image_udollars=row.price.image_udollars,
                    ),
                )
                tx.execute(
                    "put_model",
                    provider=row.provider,
                    model=row.model,
                    effective_from=row.effective_from,
                    pricing_id=row.price.pricing_id,
                    body=row.body,
                    set_at=self._clock(),
                )

        await self._database.write(act)


def _keep_price(tx: Transaction, row: PriceRow) -> None:
    known = tx.get(_PRICES, row.pricing_id)
    if known is not None and known != row:
        raise ConflictError(f"{row.pricing_id} is another price already.", "Give it a new pricing id.")
    if known is None:
        tx.insert("model_pricing", row)
        tx.keep(_PRICES, row.pricing_id, row)
