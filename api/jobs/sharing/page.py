"""Share pages as HTML: Jinja templates beside this file, in English or Chinese, without any script.

The style sheet is part of the page and allowed by its hash, so the policy needs no other source for styles.
"""

import base64
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from worker.core.errors import DreameryError
from worker.db.engine import Row

FILES_PER_PAGE = 60
_FOLDER = Path(__file__).parent

_TEXTS = {
    "shared": ("Shared pictures", "分享的图片"),
    "until": ("Available until {}", "有效期至 {}"),
    "open_image": ("Open picture {}", "查看第 {} 张图片"),
    "open_video": ("Open video {}", "查看第 {} 个视频"),
    "image": ("Picture {}", "图片 {}"),
    "video": ("Video {}", "视频 {}"),
    "close": ("Close", "关闭"),
    "previous": ("Previous", "上一个"),
    "next": ("Next", "下一个"),
    "download": ("Download", "下载"),
    "zoom": ("Zoom", "放大"),
    "prompt": ("Prompt", "提示词"),
    "newer": ("Previous page", "上一页"),
    "older": ("Next page", "下一页"),
    "made_with": ("Shared with Dreamery", "由 Dreamery 分享"),
    "share_ended": ("This page is no longer shared", "此页面已不再分享"),
    "share_ended_text": (
        "The link has expired or was revoked, or its pictures were deleted. Ask the person who sent it for a new one.",
        "链接已过期或被撤销，或者图片已被删除。请向分享者索取新的链接。",
    ),
    "share_not_found": ("There is no such page", "页面不存在"),
    "share_not_found_text": (
        "Check that the link is complete: mail programs sometimes cut long links.",
        "请检查链接是否完整：邮件程序有时会截断过长的链接。",
    ),
    "rate_limit_exceeded": ("Too many requests", "请求过多"),
    "rate_limit_exceeded_text": ("Wait a minute and try again.", "请稍等一分钟后再试。"),
}


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file as its page shows it. `name` is the last part of its link."""

    name: str
    is_video: bool
    has_thumbnail: bool
    width: int | None
    height: int | None
    prompt: str
    number: int  # among all files of the share


@lru_cache(maxsize=1)
def _environment() -> tuple[Environment, str, str]:
    """Return the templates, the style sheet, and the policy of the pages."""
    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined)
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src 'self'; media-src 'self'; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return environment, style, policy


def _render(template: str, *, status: int, chinese: bool, **values: Any) -> Response:
    environment, style, policy = _environment()
    texts = {name: pair[chinese] for name, pair in _TEXTS.items()}
    # The style sheet is ours and has no `</style>`; Jinja would escape its quotes.
    body = environment.get_template(template).render(t=texts, lang="zh-CN" if chinese else "en", style=style, **values)
    headers = {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Robots-Tag": "noindex, nofollow, noimageindex",
        "Cache-Control": "private, no-store",
        "Vary": "Accept-Language",
        "X-Frame-Options": "DENY",
    }
    return Response(body, status_code=status, headers=headers, media_type="text/html")


def render_problem(error: DreameryError, *, chinese: bool) -> Response:
    """Return the page for a link that does not work, with the status of the error."""
    answer = _render("problem.html", status=error.kind.status, chinese=chinese, code=error.code)
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer


def render_page(
    share: "Row[Any]", items: "list[Row[Any]]", *, link: str, page: int, has_more: bool, chinese: bool
) -> Response:
    """Return the page with some files of a share. `link` is the address of the page, for previews in messengers."""
    first = (page - 1) * FILES_PER_PAGE + 1
    files = [
        SharedFile(
            name=item.id.hex,
            is_video=item.mime.startswith("video/"),
            has_thumbnail=item.mime.startswith("image/") or item.poster_key is not None,
            width=item.width,
            height=item.height,
            # Prompts of other users belong to them, also in an album.
            prompt=(item.prompt or "") if share.show_prompts and item.user_id == share.user_id else "",
            number=first + n,
        )
        for n, item in enumerate(items)
    ]
    return _render(
        "page.html",
        status=200,
        chinese=chinese,
        title=share.title or share.album_name or _TEXTS["shared"][chinese],
        until=f"{share.expires_at:%Y-%m-%d %H:%M} UTC",
        files=files,
        token=link.rpartition("/")[2],
        link=link,
        preview=next((file.name for file in files if file.has_thumbnail), None),
        allow_download=share.allow_download,
        page=page,
        has_more=has_more,
    )
