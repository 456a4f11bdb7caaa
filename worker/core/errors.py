"""The error table: every failure Dreamery can report, what a client sees of it and what the engine does about it.

Codes are API: they never change meaning. Upstream's own numbers map to these rows in
`worker/providers/dreamina/error_codes.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Reaction(StrEnum):
    """What the engine does with a job whose upstream call ended in this error."""

    GIVE_UP = "give_up"  # the job fails; another account would refuse it too
    OTHER_ACCOUNT = "other_account"  # this account cannot; another of the caller's may
    RETRY_LATER = "retry_later"  # surely not accepted; the same account may be asked again after a pause
    UNCLEAR = "unclear"  # nobody knows whether it was accepted; ask by submit key first


class Fault(StrEnum):
    """Who has to change something."""

    CONTENT = "content"
    REQUEST = "request"
    ACCOUNT = "account"
    UPSTREAM = "upstream"
    PLATFORM = "platform"


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row: code, HTTP status and OpenAI type of the answer, who is at fault, what the engine does, both texts."""

    code: str
    status: int
    type: str
    fault: Fault
    reaction: Reaction
    message: str
    message_zh: str

    def said_in_chinese(self, message: str | None) -> str:
        """The Chinese text; particulars that only the English one has (names, numbers) follow it in brackets."""
        return self.message_zh if message in {None, "", self.message} else f"{self.message_zh}（{message}）"


_REQUEST = "invalid_request_error"
_SERVER = "server_error"
_RATE = "rate_limit_error"


def _row(  # noqa: PLR0917 - the table below reads as a table only without argument names
    code: str, status: int, kind: str, fault: Fault, message: str, message_zh: str, reaction: Reaction
) -> ErrorKind:
    return ErrorKind(
        code=code, status=status, type=kind, fault=fault, reaction=reaction, message=message, message_zh=message_zh
    )


def _ask(code: str, status: int, message: str, message_zh: str, kind: str = _REQUEST) -> ErrorKind:
    return _row(code, status, kind, Fault.REQUEST, message, message_zh, Reaction.GIVE_UP)


# fmt: off
ERRORS: dict[str, ErrorKind] = {
    row.code: row
    for row in (
        # the request itself
        _ask("invalid_value", 400, "A field has a value that is not accepted.",
            "某个字段的值不被接受，请按说明修改后重试。"),
        _ask("missing_required_parameter", 400, "A required field is missing.", "缺少必填字段，请补上后重试。"),
        _ask("unsupported_parameter", 400, "This field is not supported by the model.",
            "该模型不支持这个字段，请去掉它或换一个模型。"),
        _ask("unsupported_operation", 400, "This call is not offered here.",
            "这里不提供该调用，请按说明改用其他接口。"),
        _ask("file_expired", 410, "This result is past its retention and was removed.",
            "该结果已超过保存期限并被删除，请重新生成。"),
        _ask("invalid_json", 400, "The body is not valid JSON.", "请求体不是有效的 JSON，请检查格式。"),
        _ask("invalid_form", 400, "The form cannot be read.", "表单无法读取，请检查 multipart/form-data 的格式。"),
        _ask("invalid_image", 400, "A reference picture cannot be used.",
            "参考图无法使用，请换一张 PNG、JPEG、WebP 或 GIF 图片。"),
        _ask("invalid_video", 400, "A reference video cannot be used. Send an MP4, MOV or WebM video.",
            "参考视频无法使用，请换一个 MP4、MOV 或 WebM 视频。"),
        _ask("invalid_audio", 400, "A reference sound cannot be used. Send an MP3, WAV, M4A, OGG, FLAC or AAC sound.",
            "参考音频无法使用，请换一个 MP3、WAV、M4A、OGG、FLAC 或 AAC 音频。"),
        _ask("input_unavailable", 400, "A reference could not be fetched.",
            "无法获取参考素材，请检查链接能否公开访问。"),
        _ask("prompt_too_long", 400, "The prompt is too long.", "提示词过长，请缩短后重试。"),
        _ask("invalid_api_key", 401, "Unknown API key. Send `Authorization: Bearer <key>` with a valid key.",
            "API 密钥无效。请用有效的密钥发送 `Authorization: Bearer <key>`。"),
        _ask("missing_api_key", 401, "No API key given. Send `Authorization: Bearer <key>`.",
            "没有提供 API 密钥。请发送 `Authorization: Bearer <key>`。"),
        _ask("forbidden", 403, "This key may not do that.",
            "此密钥无权执行该操作，请向管理员申请权限。", "permission_error"),
        _ask("csrf_failed", 403, "The request did not come from the console's own page. Reload the page and try again.",
            "该请求不是来自控制台页面，请刷新页面后重试。", "permission_error"),
        _ask("model_not_allowed", 403, "This key may not use that model.",
            "此密钥无权使用该模型，请换一个模型或向管理员申请。", "permission_error"),
        _ask("user_not_found", 404, "No such user.", "没有这个用户，请检查名称或编号。"),
        _ask("key_not_found", 404, "No such API key.", "没有这个 API 密钥，请检查编号。"),
        _ask("account_not_found", 404, "No such account.", "没有这个账号，请检查编号。"),
        _ask("account_known", 409, "This session id is an account already.",
            "该 sessionid 已是一个账号，无需重复添加。"),
        _ask("account_retired", 409, "This account is retired. Add its session id again to bring it back.",
            "该账号已停用。请重新添加其 sessionid 以恢复。"),
        _ask("name_taken", 409, "This name is taken.", "该名称已被使用，请换一个。"),
        _ask("last_admin", 409, "The last admin cannot be switched off or lose the role.",
            "不能停用最后一位管理员或取消其角色，请先添加另一位管理员。"),
        _ask("model_not_found", 404, "Unknown model. `GET /v1/models` lists the known ones.",
            "没有这个模型。可用模型见 `GET /v1/models`。"),
        _ask("unknown_url", 404, "Unknown URL. See /docs for the list.", "没有这个地址。可用接口见 /docs。"),
        _ask("job_not_found", 404, "No such job.", "没有这个任务，请检查任务编号和所用的密钥。"),
        _ask("video_not_found", 404, "No such video.", "没有这个视频，请检查编号和所用的密钥。"),
        _ask("video_not_ready", 400, "The video is not ready yet. Ask again later.", "视频尚未生成，请稍后再试。"),
        _ask("video_failed", 400, "The video failed; there is nothing to read.", "视频生成失败，没有可读取的内容。"),
        _ask("video_expired", 410, "The video is past its retention and was removed. Make it again.",
            "该视频已超过保存期限并被删除，请重新生成。"),
        _ask("file_not_found", 404, "No such file.", "没有这个文件，请检查链接。"),
        _ask("link_expired", 403, "This link has expired. Read the job again (`GET /v1/jobs/{id}`) for a fresh one.",
            "该链接已过期，请重新查询任务（`GET /v1/jobs/{id}`）以获取新链接。", "permission_error"),
        _ask("link_not_signed", 403,
            "Links to files are signed here, and the signature of this one is missing or wrong. Use the link as it was "
            "given, or read the job again for a fresh one.",
            "此处的文件链接带有签名，而该链接的签名缺失或不正确。请使用原始链接，或重新查询任务以获取新链接。",
            "permission_error"),
        _ask("webhook_not_found", 404, "No such webhook endpoint or delivery.",
            "没有这个 webhook 端点或投递记录，请检查编号和所用的密钥。"),
        _ask("webhook_endpoint_limit", 400, "You have as many webhook endpoints as are allowed. Delete one first.",
            "webhook 端点数量已达上限，请先删除一个。"),
        _ask("webhook_endpoint_disabled", 409, "This webhook endpoint is disabled. Enable it first.",
            "该 webhook 端点已停用，请先启用它。"),
        _ask("method_not_allowed", 405, "This URL does not take that method.",
            "该地址不支持此请求方法，请查看 /docs。"),
        _ask("request_incomplete", 400, "The body did not arrive in time. Send it again, or a smaller one.",
            "请求体没有及时传完，请重新发送或缩小后再试。"),
        _ask("request_too_large", 413, "The body is too large.", "请求体过大，请缩小后重试。"),
        _ask("unsupported_media_type", 415, "The body must be application/json.",
            "请求体必须是 application/json。"),
        _ask("range_not_satisfiable", 416, "The file has no byte in that range.",
            "请求的范围超出了文件，请修改 Range。"),
        _ask("idempotency_key_reuse", 422, "This Idempotency-Key was used with another body.",
            "该 Idempotency-Key 已用于另一个请求，请换一个新的。"),
        _ask("client_disconnected", 499, "The client hung up before the request was accepted; nothing was made.",
            "客户端在请求被接受之前断开了连接，没有创建任务。"),
        _ask("job_not_finished", 400, "The job has not ended yet. Wait for it, or cancel it first.",
            "任务尚未结束，请等待其结束或先取消。"),
        _ask("job_deleted", 410, "The job was deleted.", "任务已被删除，请重新提交。"),
        _ask("input_expired", 410, "What this job was made from is no longer stored. Send the request again.",
            "该任务的输入素材已不再保存，请重新发送完整的请求。"),
        _ask("pin_limit", 400, "You keep as many jobs as are allowed. Unpin one first.",
            "保留的任务数量已达上限，请先取消保留一个。"),
        _ask("worker_not_found", 404, "No such worker answers.", "没有这个工作进程应答，请检查名称。"),
        # before acceptance
        _row("too_many_failed_keys", 429, _RATE, Fault.REQUEST,
            "Too many wrong API keys came from your network address. Correct the key and try again in a minute.",
            "来自您的网络地址的错误 API 密钥过多。请更正密钥，一分钟后再试。", Reaction.GIVE_UP),
        _row("too_many_open_requests", 429, _RATE, Fault.REQUEST,
            "You have too many requests open at once. Wait for some to be answered, or send `Prefer: respond-async`.",
            "您同时打开的请求过多。请等待部分请求完成，或使用 `Prefer: respond-async`。", Reaction.GIVE_UP),
        _ask("headers_too_large", 431, "The headers are too large. Send fewer or shorter ones.",
            "请求头过大，请减少或缩短请求头。"),
        _ask("url_too_long", 414, "The URL is too long. Send less in it, in several requests.",
            "网址过长，请缩短，或分多次请求。"),
        _ask("invalid_http", 400, "This is no valid HTTP/1.1 request. Check URL, headers and their encoding.",
            "这不是有效的 HTTP/1.1 请求，请检查网址、请求头及其编码。"),
        _row("draining", 503, _SERVER, Fault.PLATFORM,
            "The platform finishes its open jobs and takes no new ones for now (maintenance). Try again later.",
            "平台正在维护：只完成已有任务，暂不接受新任务，请稍后再试。", Reaction.RETRY_LATER),
        _row("restarting", 503, _SERVER, Fault.PLATFORM,
            "This server restarts; the job goes on. Send the same request again to wait for it.",
            "服务器正在重启，任务仍在继续。再次发送同一请求即可继续等待。", Reaction.RETRY_LATER),
        _row("storage_unavailable", 503, _SERVER, Fault.PLATFORM,
            "The storage of results does not answer as it should. Try again later.",
            "结果存储暂时不可用，请稍后再试。", Reaction.RETRY_LATER),
        _row("queue_full", 429, _RATE, Fault.PLATFORM, "Too many open jobs. Try again later.",
            "未完成的任务过多，请稍后再试。", Reaction.GIVE_UP),
        _row("budget_exceeded", 429, "insufficient_quota", Fault.PLATFORM,
            "A limit of this user or key is reached. Wait until it resets, or ask an administrator for more.",
            "该用户或密钥的额度已用完。请等待额度重置，或联系管理员提高额度。", Reaction.GIVE_UP),
        _row("no_account_available", 503, _SERVER, Fault.PLATFORM,
            "No upstream account can take this job now. Try again later or add an account.",
            "目前没有上游账号可以执行该任务。请稍后再试或添加账号。", Reaction.RETRY_LATER),
        _row("accounts_need_login", 503, _SERVER, Fault.PLATFORM,
            "Upstream no longer knows the sessions of the accounts that could take this job. Whoever keeps them must "
            "log in again and replace their session ids.",
            "可用账号的会话均已失效。请由账号的管理者重新登录并更换 sessionid。", Reaction.RETRY_LATER),
        _row("accounts_blocked", 503, _SERVER, Fault.PLATFORM,
            "Upstream blocks the accounts that could take this job (risk control). Whoever keeps them must look at "
            "them in a browser and let them go on, or add others.",
            "可用账号均被上游封锁（风控）。请由账号的管理者在浏览器中处理后恢复，或添加其他账号。",
            Reaction.RETRY_LATER),
        _row("overloaded", 503, _SERVER, Fault.PLATFORM, "The platform is not ready. Try again.",
            "平台尚未就绪，请稍后再试。", Reaction.RETRY_LATER),
        _row("interrupted_by_restore", 500, _SERVER, Fault.PLATFORM,
            "The platform was restored from a backup. Whether this job ran since is not known, so it was not run "
            "again. Retry it if you do not have its result.",
            "平台已从备份恢复，无法确定该任务此后是否运行过，因此没有再次运行。如未得到结果，请重试。",
            Reaction.GIVE_UP),
        _row("internal_error", 500, _SERVER, Fault.PLATFORM, "Internal error. Report the request id.",
            "内部错误，请把请求编号告知管理员。", Reaction.GIVE_UP),
        # content
        _row("content_policy_violation", 400, _REQUEST, Fault.CONTENT,
            "Upstream refused the content. Change the prompt and try again.",
            "上游判定内容违规。请修改提示词后重试。", Reaction.GIVE_UP),
        _row("unsupported_language", 400, _REQUEST, Fault.CONTENT,
            "Upstream does not support the language of this text. Use another one.",
            "上游不支持该文本的语言，请换一种语言。", Reaction.GIVE_UP),
        _row("invalid_parameters", 400, _REQUEST, Fault.REQUEST,
            "Upstream refused the parameters of this job. Change them and try again.",
            "上游不接受该任务的参数，请修改后重试。", Reaction.GIVE_UP),
        # accounts
        _row("upstream_session_expired", 401, "authentication_error", Fault.ACCOUNT,
            "Upstream does not know this session (expired, or on another cluster). Log in again and use the new id.",
            "上游不认识该会话（已过期，或属于其他集群）。请重新登录并使用新的 sessionid。", Reaction.OTHER_ACCOUNT),
        _row("insufficient_quota", 429, "insufficient_quota", Fault.ACCOUNT,
            "The upstream account has not enough credits or no right to this model or resolution. Top it up, use "
            "another account or ask for less.",
            "上游账号积分不足，或无权使用该模型或分辨率。请充值、换账号或降低分辨率。", Reaction.OTHER_ACCOUNT),
        _row("daily_limit_reached", 429, "insufficient_quota", Fault.ACCOUNT,
            "The upstream account has reached its daily limit. Try again tomorrow or use another account.",
            "上游账号已达到当日上限。请明天再试或换一个账号。", Reaction.OTHER_ACCOUNT),
        _row("account_limited", 429, _RATE, Fault.ACCOUNT,
            "Upstream has limited this account for today. Try again tomorrow or use another account.",
            "上游今天限制了该账号。请明天再试或换一个账号。", Reaction.OTHER_ACCOUNT),
        _row("upstream_permission_denied", 403, "permission_error", Fault.ACCOUNT,
            "Upstream says this account may not do that. Use another account or model.",
            "上游表示该账号无权执行此操作，请换一个账号或模型。", Reaction.OTHER_ACCOUNT),
        _row("upstream_consent_required", 403, "permission_error", Fault.ACCOUNT,
            "Give the first-use consent for this model on the upstream site with this account.",
            "请先用该账号在上游网站上同意该模型的首次使用条款。", Reaction.OTHER_ACCOUNT),
        _row("upstream_risk_control", 503, _SERVER, Fault.ACCOUNT,
            "Upstream refused this account or network address (risk control). Nothing was charged by upstream "
            "as far as known. Use the account in a browser; do not repeat.",
            "上游拒绝了该账号或网络地址（风控）。据目前所知上游没有扣费。请在浏览器中使用该账号，不要重复提交。",
            Reaction.OTHER_ACCOUNT),
        _row("proxy_unreachable", 502, _SERVER, Fault.ACCOUNT,
            "The proxy of this token cannot be reached, refuses, or is at a private address. Nothing went out without "
            "it. Check the proxy or send the session id with another one.",
            "该 token 的代理无法连接、拒绝连接或位于内网地址。没有绕过代理发送任何请求。请检查代理或换一个代理。",
            Reaction.OTHER_ACCOUNT),
        _row("concurrency_limit", 429, _RATE, Fault.ACCOUNT,
            "The upstream account already runs as many tasks as upstream allows. Wait until one has ended.",
            "上游账号同时进行的任务已达上限，请等其中一个完成。", Reaction.RETRY_LATER),
        _row("rate_limit_exceeded", 429, _RATE, Fault.ACCOUNT, "Too many requests in a short time. Try again later.",
            "短时间内请求过多，请稍后再试。", Reaction.RETRY_LATER),
        # upstream
        _row("generation_failed", 502, _SERVER, Fault.UPSTREAM,
            "Upstream could not generate this. Change the prompt or try again later.",
            "上游未能生成结果，请修改提示词或稍后再试。", Reaction.GIVE_UP),
        _row("upstream_error", 502, _SERVER, Fault.UPSTREAM, "Upstream answered with an error. Try again later.",
            "上游返回了错误，请稍后再试。", Reaction.GIVE_UP),
        _row("upstream_sign_error", 502, _SERVER, Fault.UPSTREAM,
            "Upstream refused the request signature. Check the clock of this machine.",
            "上游拒绝了请求签名，请检查本机时钟。", Reaction.GIVE_UP),
        _row("history_unavailable", 502, _SERVER, Fault.UPSTREAM,
            "Upstream no longer has the record of this job. Generate it again.",
            "上游已没有该任务的记录，请重新生成。", Reaction.GIVE_UP),
        _row("upstream_unreachable", 502, _SERVER, Fault.UPSTREAM,
            "Upstream cannot be reached. Check the network of this machine.",
            "无法连接上游，请检查网络后重试。", Reaction.UNCLEAR),
        _row("submit_unclear", 502, _SERVER, Fault.UPSTREAM,
            "It is not known whether upstream accepted this job, and it cannot be asked. Not repeated: it may "
            "have been paid.",
            "无法确定上游是否接受了该任务，也无法查询。为避免重复扣费，没有再次提交；请在上游网站上查看。",
            Reaction.GIVE_UP),
        _row("stream_broken", 502, _SERVER, Fault.UPSTREAM,
            "The conversation broke off before its end. It was not sent again, for upstream may have charged for it. "
            "What was said and started until then is kept; send the message again to go on.",
            "对话中途中断。为避免重复扣费，没有重新发送；已有的内容和已开始的任务会保留。如需继续，请重新发送消息。",
            Reaction.GIVE_UP),
        _row("result_unavailable", 502, _SERVER, Fault.UPSTREAM,
            "Upstream finished the job, but its results could not be copied.",
            "上游已完成任务，但结果无法复制到本地，请在上游网站上查看。", Reaction.GIVE_UP),
        _row("generation_timeout", 504, _SERVER, Fault.UPSTREAM,
            "The generation did not finish in time. It may still end upstream.",
            "生成未能按时完成，请稍后查询任务状态。", Reaction.GIVE_UP),
        # where a job ends, or a wait
        _row("check_timeout", 504, _SERVER, Fault.PLATFORM,
            "The account check was not answered in time. Try again; if it stays so, look whether a worker runs.",
            "账号查询未能按时完成。请稍后再试；如仍然如此，请检查 worker 是否在运行。", Reaction.GIVE_UP),
        _row("job_cancelled", 409, _REQUEST, Fault.REQUEST, "The job was cancelled.",
            "任务已取消。需要时请重新提交。", Reaction.GIVE_UP),
        _row("queue_timeout", 504, _SERVER, Fault.PLATFORM,
            "No account became free for this job in time. Try again later or add an account.",
            "在规定时间内没有账号空闲，请稍后再试或添加账号。", Reaction.GIVE_UP),
    )
}
# fmt: on


class DreameryError(Exception):
    """A failure with a row in the table. `message` is shown to users; it must never hold a secret."""

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        detail: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.kind = ERRORS[code]
        self.message = message or self.kind.message
        self.param = param
        self.retry_after = retry_after
        self.headers = headers  # further ones of the answer
        self.detail = detail  # for logs and the job's events: upstream's logid, its own words
        super().__init__(f"{code}: {self.message}")

    @property
    def code(self) -> str:
        """The stable code of this failure."""
        return self.kind.code
