"""Job prices: those learned from upstream charges, and `PriceList`, which all price lookups use."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from worker.core.catalog.models import get_catalog
from worker.core.catalog.pricing import (
    KnownPrice,
    Price,
    Shape,
    find_highest_price,
    find_price_in_money,
    find_pricing,
    shape_of,
)
from worker.db.accounts.eligibility import ANY_NEEDS, NEEDS, Needs, may_use
from worker.db.engine import Transaction

# Price place of an account: its region, or the country that upstream reported when its hosts were looked up.
PLACE = "coalesce(lower(a.cluster ->> 'country'), a.region)"


@dataclass(frozen=True, slots=True)
class ObservedPrice:
    """A price that upstream charged for one job."""

    place: str
    kind: str
    model: str
    shape: Shape
    credits: int
    at: datetime
    source: str  # origin of the price: history


def places_of(
    tx: Transaction,
    account_ids: list[UUID],
    *,
    user_id: UUID | None,
    choice: str,
    avoid: list[UUID] | None = None,
    needs: Needs = ANY_NEEDS,
) -> list[str]:
    """Return the price places where a job may run: of these accounts, or if empty, of all accounts it may use."""
    rows = tx.all(
        text(
            f"""SELECT DISTINCT {PLACE} AS place FROM accounts a CROSS JOIN (SELECT CAST(:user_id AS uuid) AS user_id,
                    CAST(:ids AS uuid[]) AS account_ids, CAST(:choice AS text) AS account_choice, {NEEDS}) w
                WHERE {may_use("a", "w")} AND (w.account_ids <> '{{}}' OR a.state = 'ok')
                  AND NOT (a.id = ANY(:avoid))"""
        ),
        {"user_id": user_id, "ids": account_ids, "choice": choice, "avoid": avoid or [], **needs.values()},
    )
    return [row.place for row in rows]


_OWN_PRICES = text(
    f"""/* own_prices */
    SELECT DISTINCT a.prices FROM accounts a CROSS JOIN (SELECT CAST(:user_id AS uuid) AS user_id,
        CAST(:ids AS uuid[]) AS account_ids, CAST(:choice AS text) AS account_choice, {NEEDS}) w
    WHERE {may_use("a", "w")} AND (w.account_ids <> '{{}}' OR a.state = 'ok') AND NOT (a.id = ANY(:avoid))"""
)


class PriceList:
    """Prices for the jobs of one request, read once per set of accounts and model within a transaction.

    `choice` = account choice of the request, see `eligibility.CHOICES`.
    """

    def __init__(self, tx: Transaction, *, user_id: UUID | None, choice: str) -> None:
        self._tx = tx
        self._user_id, self._choice = user_id, choice
        self._places: dict[tuple[tuple[Any, ...], ...], list[str]] = {}
        self._known: dict[tuple[str, tuple[str, ...]], list[KnownPrice]] = {}
        self._own: dict[tuple[Any, ...], list[dict[str, Any]]] = {}

    def price_of_job(
        self,
        *,
        kind: str,
        model: str,
        params: dict[str, Any],
        account_ids: list[UUID],
        avoid: list[UUID],
        providers: Sequence[str] | None = None,
        currency: str | None = None,
    ) -> Price | None:
        """Return the price on these accounts (empty = all usable) without the avoided ones; None = unknown.

        With a `currency`, the job runs for money on accounts of these providers.
        """
        if currency is not None:
            needs = Needs(providers, currency, model)
            pricing = find_pricing(get_catalog(), kind, model)
            return find_price_in_money(pricing, params, currency, self._own_prices(needs, account_ids, avoid))
        places = self.places(account_ids, avoid=avoid, providers=providers)
        return self.price_of(kind=kind, model=model, params=params, places=places)

    def places(
        self, account_ids: list[UUID], *, avoid: list[UUID], providers: Sequence[str] | None = None
    ) -> list[str]:
        """Return the price places of these accounts (empty = all of the providers that it may use), without some."""
        key = (tuple(account_ids), tuple(avoid), tuple(providers or ()))
        if key not in self._places:
            self._places[key] = places_of(
                self._tx,
                account_ids,
                user_id=self._user_id,
                choice=self._choice,
                avoid=avoid,
                needs=Needs(providers),
            )
        return self._places[key]

    def price_of(self, *, kind: str, model: str, params: dict[str, Any], places: list[str]) -> Price | None:
        """Return the highest price of a job at these places; None = unknown."""
        catalog = get_catalog()
        shape = shape_of(kind, model, params, catalog)
        if shape is None:
            return None
        return find_highest_price(
            places, kind=kind, model=model, shape=shape, known=self._known_of(model, places), catalog=catalog
        )

    def _own_prices(self, needs: Needs, account_ids: list[UUID], avoid: list[UUID]) -> list[dict[str, Any]]:
        """Return the different prices of these accounts. Without any account those of the list."""
        key = (tuple(needs.providers or ()), needs.currency, needs.model, tuple(account_ids), tuple(avoid))
        if key not in self._own:
            values = {"user_id": self._user_id, "choice": self._choice, "ids": account_ids, "avoid": avoid}
            rows = self._tx.all(_OWN_PRICES, {**values, **needs.values()})
            self._own[key] = [row.prices for row in rows] or [{}]
        return self._own[key]

    def _known_of(self, model: str, places: list[str]) -> list[KnownPrice]:
        key = (model, tuple(places))
        if key not in self._known:
            rows = self._tx.all(
                text("SELECT * FROM credit_prices WHERE model = :model AND place = ANY(:places)"),
                {"model": model, "places": places},
            )
            self._known[key] = [
                KnownPrice(row.place, Shape(row.size, row.units, row.variant), row.credits, row.at) for row in rows
            ]
        return self._known[key]


_LEARN = text(
    """/* learn_price */
    INSERT INTO credit_prices AS p (place, model, size, variant, units, kind, credits, source, at)
    VALUES (:place, :model, :size, :variant, :units, :kind, :credits, :source, :at)
    ON CONFLICT (place, model, size, variant, units) DO UPDATE SET
        jobs = CASE WHEN p.credits = excluded.credits THEN p.jobs + 1 ELSE 1 END,
        credits = excluded.credits, source = excluded.source, at = excluded.at
    WHERE excluded.at >= p.at"""
)


def store_prices(tx: Transaction, observed: list[ObservedPrice]) -> None:
    """Store prices; the newest wins. Sorted, so that concurrent tasks lock the rows in the same order."""
    rows = [
        {
            "place": one.place,
            "model": one.model,
            "size": one.shape.size,
            "variant": one.shape.variant,
            "units": one.shape.units,
            "kind": one.kind,
            "credits": one.credits,
            "source": one.source,
            "at": one.at,
        }
        for one in observed
        if one.credits > 0 and one.shape.units > 0
    ]
    rows.sort(key=lambda row: tuple(str(row[name]) for name in ("place", "model", "size", "variant", "units", "at")))
    if rows:
        tx.run(_LEARN, rows)


def list_learned_prices(tx: Transaction, *, model: str | None = None, limit: int = 5000) -> list[Row[Any]]:
    """Return the learned prices."""
    return tx.all(
        text(
            """SELECT * FROM credit_prices WHERE CAST(:model AS text) IS NULL OR model = :model
               ORDER BY place, kind, model, size, variant, units LIMIT :limit"""
        ),
        {"model": model, "limit": limit},
    )
