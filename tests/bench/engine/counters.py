"""Counters of Postgres and Redis: commits, WAL, commands, Celery messages."""

from dataclasses import dataclass

import psycopg
import redis

_READ = """SELECT xact_commit, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8
           FROM pg_stat_database WHERE datname = current_database()"""


@dataclass(frozen=True)
class Counts:
    """Totals since the servers started, or a difference of two totals."""

    commits: float = 0.0
    wal_kb: float = 0.0
    redis_commands: float = 0.0
    messages: float = 0.0  # Celery sends each with LPUSH

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(
            self.commits - other.commits,
            self.wal_kb - other.wal_kb,
            self.redis_commands - other.redis_commands,
            self.messages - other.messages,
        )

    def times(self, factor: float) -> "Counts":
        """Return the counts multiplied."""
        return Counts(self.commits * factor, self.wal_kb * factor, self.redis_commands * factor, self.messages * factor)


class Counters:
    """Reads the counters; takes off what its own reads add."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self._database = psycopg.connect(database_url, autocommit=True)
        self._redis = redis.Redis.from_url(redis_url)
        self._redis.ping()
        self._reads = 0

    def read(self) -> Counts:
        """Return the totals."""
        row = self._database.execute(_READ).fetchone()
        if row is None:
            raise LookupError("no statistics of this database")
        info = self._redis.info("all")
        pushes = info.get("cmdstat_lpush", {}).get("calls", 0)
        counts = Counts(float(row[0]), row[1] / 1000, float(info["total_commands_processed"]), float(pushes))
        counts -= Counts(commits=self._reads, redis_commands=self._reads)
        self._reads += 1
        return counts

    def close(self) -> None:
        """Close both connections."""
        self._database.close()
        self._redis.close()
