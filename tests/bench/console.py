"""Benchmark of the console with many results: the list of jobs and the gallery, to their first rows and scrolling.

The jobs are copies of a few that really ran, so they have results with images.
"""

import os
import statistics
import time
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
from playwright.sync_api import Page, sync_playwright
from psycopg import sql

from worker.local.supervisor import Platform

_SCREEN = {"width": 1440, "height": 900}
# Measured by the page, from the start of the navigation.
_FIRST_ROW = """
new MutationObserver((_, observer) => {
  if (!document.querySelector('.job-row, .tile')) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.firstRow = performance.now(); }));
}).observe(document, { childList: true, subtree: true });
"""
# Scrolls down one screen at a time until `rows` rows exist; measures every frame.
_SCROLL = """
async ([selector, rows]) => {
  const frames = [];
  let finished = false;
  let last = performance.now();
  const start = last;
  const measureFrame = (now) => { frames.push(now - last); last = now; if (!finished) requestAnimationFrame(measureFrame); };
  requestAnimationFrame(measureFrame);
  while (document.querySelectorAll(selector).length < rows) {
    scrollBy(0, innerHeight);
    await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 16)));
  }
  finished = true;
  frames.sort((a, b) => a - b);
  return { seconds: (performance.now() - start) / 1000, median: frames[frames.length >> 1], p95: frames[Math.floor(frames.length * 0.95)] };
}
"""


# Of a page: its path, and its rows.
_PAGES = {"jobs": ("/console/jobs", ".job-row"), "gallery": ("/console/gallery", ".tile")}


@dataclass
class PageFigures:
    """Median times of a page, and the figures of scrolling."""

    warm_ms: float  # from navigation to the first painted row, browser cache warm
    cold_ms: float  # the same with an empty cache
    scrolled_rows: int
    scroll_seconds: float
    frame_median_ms: float
    frame_p95_ms: float


@dataclass
class Figures:
    """Median times of the API and of the pages."""

    results: int
    load_average: float
    jobs_first_ms: float  # GET /v1/jobs?limit=50, the newest
    jobs_deep_ms: float  # the same from the middle of the list
    jobs_search_ms: float  # search for a word in half of the prompts
    results_first_ms: float  # GET /v1/results?limit=60&include=jobs, the newest
    results_deep_ms: float  # the same from the middle of the list
    results_favourites_ms: float  # those that are favourites: none
    jobs_page: PageFigures
    gallery_page: PageFigures


def run(platform: Platform, executable: str, *, jobs: int, scrolled: int) -> Figures:
    """Fill the lists and measure them."""
    headers = {"Authorization": f"Bearer {platform.admin_key}"}
    with httpx.Client(base_url=platform.url, headers=headers, timeout=120, trust_env=False) as http:
        for prompt in ("a red paper boat on a calm lake", "waves roll ashore at dawn"):
            http.post("/v1/images/generations", json={"prompt": prompt, "n": 1}).raise_for_status()
        fill_jobs(platform.database_url, jobs)
        with psycopg.connect(platform.database_url) as database:
            row = database.execute("SELECT id FROM jobs ORDER BY id OFFSET %s LIMIT 1", [jobs // 2]).fetchone()
        assert row is not None
        middle, gallery = row[0].hex, {"limit": 60, "include": "jobs"}
        requests: list[tuple[str, dict[str, Any]]] = [
            ("/v1/jobs", {"limit": 50}),
            ("/v1/jobs", {"limit": 50, "after": f"job_{middle}"}),
            ("/v1/jobs", {"limit": 50, "q": "waves"}),
            ("/v1/results", gallery),
            ("/v1/results", {**gallery, "after": f"{middle}.0"}),
            ("/v1/results", {**gallery, "favourite": True}),
        ]
        times = [_median_ms(http, path, params) for path, params in requests]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            pages = {name: _measure_page(browser, platform, *where, scrolled) for name, where in _PAGES.items()}
        finally:
            browser.close()
    return Figures(jobs, os.getloadavg()[0], *times, jobs_page=pages["jobs"], gallery_page=pages["gallery"])


def fill_jobs(database_url: str, jobs: int) -> None:
    """Insert `jobs` jobs of the past year, copies of finished jobs with their files."""
    with psycopg.connect(database_url, autocommit=True) as database:
        new = {"id", "group_id", "submit_key", "created_at", "submitted_at", "finished_at"}
        of_jobs, of_files = _columns(database, "jobs", new), _columns(database, "files", {"id", "job_id"})
        # UUIDs of version 7, which sort by time like real ids.
        database.execute(
            sql.SQL(
                """CREATE TEMP TABLE copies AS
                   SELECT ((lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' ||
                           substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid) AS id, at, n, j.id AS source
                   FROM (SELECT n, now() - n * interval '50 minutes' AS at FROM generate_series(1, %s) n) numbers
                   JOIN (SELECT id, row_number() OVER () - 1 AS k, count(*) OVER () AS many FROM jobs WHERE state = 'succeeded') j
                     ON n %% j.many = j.k"""
            ),
            [jobs],
        )
        database.execute(
            sql.SQL(
                """INSERT INTO jobs (id, group_id, submit_key, created_at, submitted_at, finished_at, {names})
                   SELECT c.id, c.id, gen_random_uuid(), c.at, c.at + interval '2 seconds', c.at + interval '30 seconds', {columns}
                   FROM copies c JOIN jobs ON jobs.id = c.source"""
            ).format(**of_jobs)
        )
        database.execute(
            sql.SQL(
                """INSERT INTO files (id, job_id, {names})
                   SELECT gen_random_uuid(), c.id, {columns} FROM copies c JOIN files ON files.job_id = c.source"""
            ).format(**of_files)
        )
        database.execute("ANALYZE")


def _columns(database: Any, table: str, excluded: set[str]) -> dict[str, sql.Composable]:
    """The copied columns: `names` to insert, `columns` to select."""
    rows = database.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND is_generated = 'NEVER'", [table]
    ).fetchall()
    copied = [name for (name,) in rows if name not in excluded]
    return {
        "names": sql.SQL(", ").join(sql.Identifier(name) for name in copied),
        "columns": sql.SQL(", ").join(sql.Identifier(table, name) for name in copied),
    }


def _median_ms(http: httpx.Client, path: str, params: dict[str, Any]) -> float:
    seconds = []
    for _ in range(25):
        start = time.perf_counter()
        http.get(path, params=params).raise_for_status()
        seconds.append(time.perf_counter() - start)
    return round(statistics.median(seconds) * 1000, 1)


def _measure_page(browser: Any, platform: Platform, path: str, row: str, rows: int) -> PageFigures:
    key = {"Authorization": f"Bearer {platform.admin_key}"}
    times: dict[bool, list[float]] = {True: [], False: []}
    scroll: dict[str, float] = {}
    for _ in range(5):
        with browser.new_context(base_url=platform.url, viewport=_SCREEN, locale="en") as context:
            context.request.post("/console/session", headers=key)
            page = context.new_page()
            page.add_init_script(_FIRST_ROW)
            for cold in (True, False, False):
                times[cold].append(_load(page, path, row))
            if not scroll:
                scroll = page.evaluate(_SCROLL, [row, rows])
    return PageFigures(
        warm_ms=round(statistics.median(times[False])),
        cold_ms=round(statistics.median(times[True])),
        scrolled_rows=rows,
        scroll_seconds=round(scroll["seconds"], 1),
        frame_median_ms=round(scroll["median"], 1),
        frame_p95_ms=round(scroll["p95"], 1),
    )


def _load(page: Page, path: str, row: str) -> float:
    page.goto(path)
    page.locator(row).first.wait_for()
    # The page's security policy forbids `wait_for_function`.
    return float(
        page.evaluate(
            "new Promise((resolve) => { const check = () => (window.firstRow ? resolve(window.firstRow) : setTimeout(check, 5)); check(); })"
        )
    )
