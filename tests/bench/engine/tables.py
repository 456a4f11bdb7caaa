"""The rows as two Markdown tables, aligned for the terminal: speed, and cost."""

from collections.abc import Sequence

from tests.bench.engine.measure import Row


def speed_table(rows: list[Row]) -> str:
    """Jobs, delays and calls of each row."""
    head = (
        "scenario",
        "system",
        "jobs/s",
        "delay p50 / p95 s",
        "latency p50 / p95 s",
        "calls/job",
        "failed",
        "violations",
    )
    return _table(
        head,
        [
            (
                row.scenario,
                row.target,
                f"{row.jobs_per_second:.1f}",
                _pair(row.delay),
                _pair(row.latency),
                _number(row.calls_per_job, 2),
                f"{row.failed} of {row.jobs}",
                "; ".join(row.violations) or "none",
            )
            for row in rows
        ],
    )


def cost_table(rows: list[Row]) -> str:
    """CPU, memory, and work of the servers of each row; rows without a process are left out."""
    head = (
        "scenario", "system", "CPU ms/job", "by process", "PSS MB idle / warm / busy", "busy by process", "commits, WAL kB, Redis, messages per job",
        "idle: CPU ms, commits, Redis per s", "load before / during",
    )  # fmt: skip
    return _table(head, [_cost(row) for row in rows if row.cpu_ms_per_job is not None])


def _cost(row: Row) -> tuple[str, ...]:
    cpu = sorted(row.cpu_by_process.items(), key=lambda item: -item[1])
    memory = sorted(row.pss_by_process.items(), key=lambda item: -item[1])
    work, idle = row.per_job, row.idle_per_second
    names = ("commits", "wal_kb", "redis_commands", "messages")
    return (
        row.scenario,
        row.target,
        _number(row.cpu_ms_per_job, 1),
        ", ".join(f"{role} {ms:.1f}" for role, ms in cpu if ms >= 0.05),
        " / ".join(_number(mb, 0) for mb in (row.pss_idle_mb, row.pss_warm_mb, row.pss_busy_mb)),
        ", ".join(f"{role} {mb:.0f}" for role, mb in memory),
        ", ".join(f"{work[name]:.1f}" for name in names) if work else "-",
        f"{_number(row.idle_cpu_ms_per_second, 0)}, "
        + (f"{idle['commits']:.1f}, {idle['redis_commands']:.1f}" if idle else "-"),
        f"{row.load_before:.1f} / {row.load_during:.1f}",
    )


def _pair(values: tuple[float, float] | None) -> str:
    return f"{values[0]:.2f} / {values[1]:.2f}" if values else "-"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _table(head: Sequence[str], rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(line[column]) for line in [head, *rows]) for column in range(len(head))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *rows]]
    ruler = "|".join("-" * (width + 2) for width in widths)
    return "\n".join([f"| {lines[0]} |", f"|{ruler}|", *(f"| {line} |" for line in lines[1:])])
