"""Turns of lists: one after the other for all keys of a customer, in all processes."""

from sqlalchemy import text

from worker.db.engine import Transaction

# Who would wait longer gets no turn.
_MOST_WAIT_SECONDS = 20.0
_TAKE = text(
    """/* take_list_turn */
    INSERT INTO list_paces AS p (name, next_at) VALUES (:name, clock_timestamp() + make_interval(secs => :pause))
    ON CONFLICT (name) DO UPDATE SET
        next_at = greatest(p.next_at, clock_timestamp()) + make_interval(secs => :pause)
        WHERE p.next_at < clock_timestamp() + make_interval(secs => :most)
    RETURNING greatest(extract(epoch FROM next_at - clock_timestamp()) - :pause, 0)::float8 AS seconds"""
)


def take_turn(tx: Transaction, name: str, *, pause: float) -> float | None:
    """Take the next turn of a customer. Return the seconds until it; None = too many wait already."""
    row = tx.first(_TAKE, {"name": name, "pause": pause, "most": _MOST_WAIT_SECONDS})
    return None if row is None else float(row.seconds)


def delete_old(tx: Transaction) -> None:
    """Delete the rows of customers that nobody asked about for a day."""
    tx.run(text("DELETE FROM list_paces WHERE next_at < clock_timestamp() - interval '1 day'"))
