"""Benchmark of the console with many results: the list of jobs and the gallery, to their first rows and scrolling.

The jobs are copies of a few that really ran. Each has a file of its own, which is a hard link to that of the job it was
copied from. Thumbnails are missing at the first visit; then the newest jobs get theirs, as after an earlier visit.
"""

import contextlib
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
from playwright.sync_api import Page, sync_playwright
from psycopg import sql

from worker.core.media.thumbnail_keys import thumbnail_keys
from worker.local.supervisor import Platform

_SCREEN = {"width": 1440, "height": 900}
# The newest jobs, which the pages show, have bytes; the rows of the others are as large as theirs.
_WITH_BYTES = 3000
# On a busy machine the first page of a new browser takes long.
_PATIENCE_MS = 120_000
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
  return { frames: frames.length, seconds: (performance.now() - start) / 1000, median: frames[frames.length >> 1], p95: frames[Math.floor(frames.length * 0.95)] };
}
"""


# Milliseconds from the start of the navigation until all pictures on the screen are there.
_PICTURES = """
new Promise((resolve) => {
  const isOnScreen = (image) => { const box = image.getBoundingClientRect(); return box.top < innerHeight && box.bottom > 0; };
  const check = () => ([...document.querySelectorAll('.job-row img, .tile img')].filter(isOnScreen).every((image) => image.complete && image.naturalWidth)
    ? resolve(performance.now()) : setTimeout(check, 20));
  check();
})
"""
# Of a page: its path, and its rows.
_PAGES = {"jobs": ("/console/jobs", ".job-row"), "gallery": ("/console/gallery", ".tile")}


@dataclass
class PageFigures:
    """Median times of a page, and the figures of scrolling."""

    warm_ms: float  # from navigation to the first painted row, browser cache warm
    cold_ms: float  # the same with an empty cache
    pictures_warm_ms: float  # until all pictures on the screen are there, browser cache warm
    pictures_cold_ms: float  # the same with an empty cache; the thumbnails were made at an earlier visit
    pictures_made_ms: float  # the same at the very first visit, which makes the thumbnails
    scrolled_rows: int
    scroll_seconds: float
    frames: int
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
        for result in http.get("/v1/results").raise_for_status().json()["data"]:
            for size in ("small", "medium"):
                http.get(result["thumbnail_url"], params={"size": size}).raise_for_status()
        newest = fill_jobs(platform.database_url, jobs)
        link_files(platform.data_dir / "files", newest, thumbnails=False)
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
            made = {name: _first_visit(browser, platform, *where) for name, where in _PAGES.items()}
            link_files(platform.data_dir / "files", newest, thumbnails=True)
            pages = {
                name: _measure_page(browser, platform, *where, rows=scrolled, made_ms=made[name])
                for name, where in _PAGES.items()
            }
        finally:
            browser.close()
    return Figures(jobs, os.getloadavg()[0], *times, jobs_page=pages["jobs"], gallery_page=pages["gallery"])


def fill_jobs(database_url: str, jobs: int) -> list[tuple[str, str]]:
    """Insert `jobs` jobs of the past years, copies of finished jobs with rows of their files.

    Returns the storage keys of files of the newest jobs: that of the copied file, and the new one.
    """
    with psycopg.connect(database_url, autocommit=True) as database:
        new = {"id", "group_id", "submit_key", "created_at", "submitted_at", "finished_at"}
        of_jobs, of_files = _columns(database, "jobs", new), _columns(database, "files", {"id", "job_id", "key"})
        key = sql.SQL("replace(files.key, replace(c.source::text, '-', ''), replace(c.id::text, '-', ''))")
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
                """INSERT INTO files (id, job_id, key, {names})
                   SELECT gen_random_uuid(), c.id, {key}, {columns} FROM copies c JOIN files ON files.job_id = c.source"""
            ).format(**of_files, key=key)
        )
        database.execute("ANALYZE")
        query = sql.SQL("SELECT files.key, {key} FROM copies c JOIN files ON files.job_id = c.source WHERE c.n <= %s")
        return database.execute(query.format(key=key), [_WITH_BYTES]).fetchall()


def link_files(folder: Path, keys: list[tuple[str, str]], *, thumbnails: bool) -> None:
    """Give new keys the bytes of copied files, or only their thumbnails."""
    for source, new in keys:
        names = zip(thumbnail_keys(source), thumbnail_keys(new), strict=True) if thumbnails else [(source, new)]
        for old_name, new_name in names:
            (folder / new_name).parent.mkdir(parents=True, exist_ok=True)
            # Those that a visit has made are there.
            with contextlib.suppress(FileExistsError):
                os.link(folder / old_name, folder / new_name)


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


@contextlib.contextmanager
def _signed_in(browser: Any, platform: Platform) -> Iterator[Page]:
    """Yield a page of a browser with an empty cache."""
    with browser.new_context(base_url=platform.url, viewport=_SCREEN, locale="en") as context:
        context.request.post("/console/session", headers={"Authorization": f"Bearer {platform.admin_key}"})
        page = context.new_page()
        page.add_init_script(_FIRST_ROW)
        yield page


def _first_visit(browser: Any, platform: Platform, path: str, row: str) -> float:
    with _signed_in(browser, platform) as page:
        return _load(page, path, row)[1]


def _measure_page(browser: Any, platform: Platform, path: str, row: str, *, rows: int, made_ms: float) -> PageFigures:
    times: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    scroll: dict[str, float] = {}
    for _ in range(5):
        with _signed_in(browser, platform) as page:
            for cold in (True, False, False):
                times[cold].append(_load(page, path, row))
            if not scroll:
                scroll = page.evaluate(_SCROLL, [row, rows])
    warm, cold = (
        [round(statistics.median(column)) for column in zip(*times[which], strict=True)] for which in (False, True)
    )
    return PageFigures(
        warm_ms=warm[0],
        cold_ms=cold[0],
        pictures_warm_ms=warm[1],
        pictures_cold_ms=cold[1],
        pictures_made_ms=round(made_ms),
        scrolled_rows=rows,
        scroll_seconds=round(scroll["seconds"], 1),
        frames=round(scroll["frames"]),
        frame_median_ms=round(scroll["median"], 1),
        frame_p95_ms=round(scroll["p95"], 1),
    )


def _load(page: Page, path: str, row: str) -> tuple[float, float]:
    """Open the page. Return when its first row was painted, and when all pictures on the screen were there."""
    page.goto(path, timeout=_PATIENCE_MS)
    page.locator(row).first.wait_for(timeout=_PATIENCE_MS)
    # The page's security policy forbids `wait_for_function`.
    first = page.evaluate(
        "new Promise((resolve) => { const check = () => (window.firstRow ? resolve(window.firstRow) : setTimeout(check, 5)); check(); })"
    )
    return float(first), float(page.evaluate(_PICTURES))
