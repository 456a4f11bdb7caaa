"""The error table: every failure Dreamery can report, what the client sees, and how the job engine reacts.

Codes are part of the API and never change meaning. Each provider maps the errors of its upstream to these rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Reaction(StrEnum):
    """How the job engine handles a job whose upstream call ended in this error."""

    GIVE_UP = "give_up"  # the job fails; another account would get the same error
    OTHER_ACCOUNT = "other_account"  # try another account
    RETRY_LATER = "retry_later"  # certainly not accepted; retry on the same account after a pause
    UNCLEAR = "unclear"  # unknown whether it was accepted; look it up by submit key first


class Fault(StrEnum):
    """The cause of the error: who has to change something."""

    CONTENT = "content"
    REQUEST = "request"
    ACCOUNT = "account"
    UPSTREAM = "upstream"
    PLATFORM = "platform"


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row: code, HTTP status, OpenAI error type, cause, reaction of the engine, message in two languages."""

    code: str
    status: int
    type: str
    fault: Fault
    reaction: Reaction
    message: str
    message_zh: str


_REQUEST = "invalid_request_error"
_SERVER = "server_error"
_RATE = "rate_limit_error"


def _row(  # noqa: PLR0917 - positional arguments keep the table below readable
    code: str, status: int, kind: str, fault: Fault, message: str, message_zh: str, reaction: Reaction
) -> ErrorKind:
    return ErrorKind(
        code=code, status=status, type=kind, fault=fault, reaction=reaction, message=message, message_zh=message_zh
    )


def _request_row(code: str, status: int, message: str, message_zh: str, kind: str = _REQUEST) -> ErrorKind:
    return _row(code, status, kind, Fault.REQUEST, message, message_zh, Reaction.GIVE_UP)


# fmt: off
ERRORS: dict[str, ErrorKind] = {
    row.code: row
    for row in (
        # invalid requests
        _request_row("invalid_value", 400, "A field has an invalid value. Correct it and try again.",
            "某个字段的值无效，请修改后重试。"),
        _request_row("missing_required_parameter", 400, "A required field is missing. Add it and try again.",
            "缺少必填字段，请补上后重试。"),
        _request_row("unsupported_parameter", 400,
            "The model does not support this field. Remove it or choose another model.",
            "该模型不支持这个字段，请去掉它或换一个模型。"),
        _request_row("unsupported_operation", 400, "This operation is not supported here.",
            "此处不支持该操作，请按说明改用其他接口。"),
        _request_row("file_expired", 410, "This result was deleted after its retention period. Generate it again.",
            "该结果已超过保存期限并被删除，请重新生成。"),
        _request_row("invalid_json", 400, "The request body is not valid JSON.", "请求体不是有效的 JSON，请检查格式。"),
        _request_row("invalid_form", 400, "The form data cannot be parsed. Check the multipart/form-data encoding.",
            "表单无法读取，请检查 multipart/form-data 的格式。"),
        _request_row("invalid_image", 400,
            "A reference image cannot be used. Send a PNG, JPEG, WebP, HEIC, AVIF, GIF, BMP or TIFF image.",
            "参考图无法使用，请换一张 PNG、JPEG、WebP、HEIC、AVIF、GIF、BMP 或 TIFF 图片。"),
        _request_row("invalid_video", 400, "A reference video cannot be used. Send an MP4, MOV or WebM video.",
            "参考视频无法使用，请换一个 MP4、MOV 或 WebM 视频。"),
        _request_row("invalid_audio", 400,
            "A reference audio file cannot be used. Send an MP3, WAV, M4A, OGG, FLAC or AAC file.",
            "参考音频无法使用，请换一个 MP3、WAV、M4A、OGG、FLAC 或 AAC 音频。"),
        _request_row("input_unavailable", 400,
            "A reference could not be fetched. Check that its URL is publicly accessible.",
            "无法获取参考素材，请检查链接能否公开访问。"),
        _request_row("prompt_too_long", 400, "The prompt is too long. Shorten it and try again.",
            "提示词过长，请缩短后重试。"),
        _request_row("invalid_api_key", 401, "Invalid API key. Send `Authorization: Bearer <key>` with a valid key.",
            "API 密钥无效。请用有效的密钥发送 `Authorization: Bearer <key>`。"),
        _request_row("missing_api_key", 401, "No API key provided. Send `Authorization: Bearer <key>`.",
            "没有提供 API 密钥。请发送 `Authorization: Bearer <key>`。"),
        _request_row("invalid_credentials", 401, "The name or the password is wrong.", "用户名或密码不正确。"),
        _request_row("sign_in_failed", 403, "The sign-in did not succeed. Start it again from the sign-in page.",
            "登录未成功，请从登录页面重新开始。", "permission_error"),
        _request_row("invitation_invalid", 410,
            "This invitation has been used or has expired. Ask an administrator for a new one.",
            "此邀请已被使用或已过期，请向管理员索取新的邀请。"),
        _request_row("weak_password", 400, "Choose another password.", "请换一个密码。"),
        _request_row("forbidden", 403, "This key does not have permission for this operation.",
            "此密钥无权执行该操作，请向管理员申请权限。", "permission_error"),
        _request_row("csrf_failed", 403,
            "The request did not come from the console page. Reload the page and try again.",
            "该请求不是来自控制台页面，请刷新页面后重试。", "permission_error"),
        _request_row("model_not_allowed", 403, "This key does not have access to this model.",
            "此密钥无权使用该模型，请换一个模型或向管理员申请。", "permission_error"),
        _request_row("user_not_found", 404, "User not found. Check the name or id.", "用户不存在，请检查名称或编号。"),
        _request_row("key_not_found", 404, "API key not found. Check the id.", "API 密钥不存在，请检查编号。"),
        _request_row("account_not_found", 404, "Account not found. Check the id.", "账号不存在，请检查编号。"),
        _request_row("account_known", 409, "An account with this session id already exists.",
            "该 sessionid 对应的账号已存在，无需重复添加。"),
        _request_row("account_retired", 409, "This account was removed. Add its session id again to restore it.",
            "该账号已移除。如需恢复，请重新添加其 sessionid。"),
        _request_row("own_account_limit", 400,
            "You have as many accounts of your own as you may have. Remove one first, or ask an administrator.",
            "自有账号数量已达上限，请先移除一个，或联系管理员。"),
        _request_row("name_taken", 409, "This name is already in use. Choose another one.",
            "该名称已被使用，请换一个。"),
        _request_row("last_admin", 409,
            "The last administrator cannot be disabled or lose the admin role. Add another administrator first.",
            "不能停用最后一位管理员或取消其角色，请先添加另一位管理员。"),
        _request_row("model_not_found", 404, "Unknown model. `GET /v1/models` lists the available models.",
            "模型不存在。可用模型见 `GET /v1/models`。"),
        _request_row("unknown_url", 404, "Unknown URL. See /docs for the list of endpoints.",
            "请求地址不存在。可用接口见 /docs。"),
        _request_row("batch_not_found", 404, "Batch not found. Check the id and the key.",
            "批次不存在，请检查编号和密钥。"),
        _request_row("batch_ended", 409, "The batch has ended or is ending, so it cannot be changed.",
            "批次已结束或正在结束，无法更改。"),
        _request_row("file_limit", 400, "You have as many uploaded files as you may have. Delete some first.",
            "上传的文件已达上限，请先删除一些。"),
        _request_row("job_not_found", 404, "Job not found. Check the id and the key.",
            "任务不存在，请检查任务编号和所用的密钥。"),
        _request_row("conversation_not_found", 404, "Conversation not found. Check the id and the key.",
            "对话不存在，请检查对话编号和所用的密钥。"),
        _request_row("conversation_busy", 409,
            "This conversation is being answered, or got another message meanwhile. "
            "Read it again, then send the message.",
            "该对话正在回答，或刚收到另一条消息。请重新读取对话后再发送。"),
        _request_row("video_not_found", 404, "Video not found. Check the id and the key.",
            "视频不存在，请检查编号和所用的密钥。"),
        _request_row("video_not_ready", 400, "The video is not ready yet. Try again later.",
            "视频尚未生成，请稍后再试。"),
        _request_row("video_failed", 400, "The video generation failed, so there is no content to download.",
            "视频生成失败，没有可下载的内容。"),
        _request_row("video_expired", 410, "The video was deleted after its retention period. Generate it again.",
            "该视频已超过保存期限并被删除，请重新生成。"),
        _request_row("file_not_found", 404, "File not found. Check the link.", "文件不存在，请检查链接。"),
        _request_row("link_expired", 403,
            "This link has expired. Get the job again (`GET /v1/jobs/{id}`) for a new link.",
            "该链接已过期，请重新查询任务（`GET /v1/jobs/{id}`）以获取新链接。", "permission_error"),
        _request_row("link_not_signed", 403,
            "File links are signed on this platform, and the signature of this link is missing or invalid. Use the "
            "original link, or get the job again for a new one.",
            "此处的文件链接带有签名，而该链接的签名缺失或不正确。请使用原始链接，或重新查询任务以获取新链接。",
            "permission_error"),
        _request_row("webhook_not_found", 404, "Webhook endpoint or delivery not found. Check the id and the key.",
            "webhook 端点或投递记录不存在，请检查编号和所用的密钥。"),
        _request_row("webhook_endpoint_limit", 400,
            "You have reached the maximum number of webhook endpoints. Delete one first.",
            "webhook 端点数量已达上限，请先删除一个。"),
        _request_row("webhook_endpoint_disabled", 409, "This webhook endpoint is disabled. Enable it first.",
            "该 webhook 端点已停用，请先启用它。"),
        _request_row("method_not_allowed", 405, "This URL does not support this method. See /docs.",
            "该地址不支持此请求方法，请查看 /docs。"),
        _request_row("request_incomplete", 408,
            "The request body did not arrive in time. Send it again, or send a smaller one.",
            "请求体未能及时传完，请重新发送，或缩小后再试。"),
        _request_row("request_too_large", 413, "The request body is too large. Send a smaller one.",
            "请求体过大，请缩小后重试。"),
        _request_row("unsupported_media_type", 415, "The request body must be application/json.",
            "请求体必须是 application/json。"),
        _request_row("range_not_satisfiable", 416, "The requested range is outside the file. Change the Range header.",
            "请求的范围超出了文件大小，请修改 Range。"),
        _request_row("idempotency_key_reuse", 422,
            "This Idempotency-Key was already used with a different request. Use a new key.",
            "该 Idempotency-Key 已用于另一个请求，请换一个新的。"),
        _request_row("client_disconnected", 499,
            "The client disconnected before the request was accepted. No job was created.",
            "客户端在请求被接受之前断开了连接，没有创建任务。"),
        _request_row("job_not_finished", 400, "The job has not finished yet. Wait for it or cancel it first.",
            "任务尚未结束，请等待其结束或先取消。"),
        _request_row("job_deleted", 410, "The job was deleted. Submit it again.", "任务已被删除，请重新提交。"),
        _request_row("input_expired", 410,
            "The inputs of this job are no longer stored. Send the complete request again.",
            "该任务的输入素材已不再保存，请重新发送完整的请求。"),
        _request_row("pin_limit", 400, "You have reached the maximum number of pinned jobs. Unpin one first.",
            "保留的任务数量已达上限，请先取消保留一个。"),
        _request_row("album_not_found", 404, "Album not found. Check the id.", "相册不存在，请检查编号。"),
        _request_row("album_limit", 400, "You have reached the maximum number of albums. Delete one first.",
            "相册数量已达上限，请先删除一个。"),
        _request_row("alert_not_found", 404, "Alert, rule or channel not found. Check the id.",
            "告警、规则或渠道不存在，请检查编号。"),
        _request_row("alert_channel_limit", 400,
            "You have reached the maximum number of alert channels. Delete one first.",
            "告警渠道数量已达上限，请先删除一个。"),
        _request_row("share_not_found", 404, "Share link not found. Check the id.", "分享链接不存在，请检查编号。"),
        _request_row("share_ended", 410, "This share link has expired or was revoked. Ask its owner for a new one.",
            "此分享链接已过期或已被撤销，请向分享者索取新的链接。"),
        _request_row("share_limit", 400, "You have reached the maximum number of share links. Revoke one first.",
            "分享链接数量已达上限，请先撤销一个。"),
        _request_row("shares_off", 403, "Share links are turned off on this platform.",
            "此平台已关闭分享链接，请联系管理员。", "permission_error"),
        _request_row("worker_not_found", 404, "No worker with this name responds. Check the name.",
            "没有该名称的工作进程响应，请检查名称。"),
        # refused before acceptance
        _row("too_many_failed_keys", 429, _RATE, Fault.REQUEST,
            "Too many invalid API keys were sent from your network address. Correct the key and try again in a minute.",
            "您的网络地址发送的无效 API 密钥过多。请更正密钥，一分钟后再试。", Reaction.GIVE_UP),
        _row("too_many_open_requests", 429, _RATE, Fault.REQUEST,
            "You have too many concurrent requests. Wait for some to finish, or send `Prefer: respond-async`.",
            "您的并发请求过多。请等待部分请求完成，或使用 `Prefer: respond-async`。", Reaction.GIVE_UP),
        _request_row("headers_too_large", 431, "The request headers are too large. Send fewer or shorter headers.",
            "请求头过大，请减少或缩短请求头。"),
        _request_row("url_too_long", 414, "The URL is too long. Shorten it or split it into several requests.",
            "网址过长，请缩短，或拆分为多个请求。"),
        _request_row("invalid_http", 400,
            "This is not a valid HTTP/1.1 request. Check the URL, the headers and their encoding.",
            "这不是有效的 HTTP/1.1 请求，请检查网址、请求头及其编码。"),
        _row("draining", 503, _SERVER, Fault.PLATFORM,
            "Under maintenance: running jobs will finish, new ones are not accepted. Try again later.",
            "平台正在维护：运行中的任务会继续完成，暂不接受新任务。请稍后再试。", Reaction.RETRY_LATER),
        _row("restarting", 503, _SERVER, Fault.PLATFORM,
            "The server is restarting, but the job continues. Send the same request again to wait for it.",
            "服务器正在重启，任务仍在继续。再次发送同一请求即可继续等待。", Reaction.RETRY_LATER),
        _row("storage_unavailable", 503, _SERVER, Fault.PLATFORM,
            "The result storage is not available. Try again later.",
            "结果存储暂时不可用，请稍后再试。", Reaction.RETRY_LATER),
        _row("queue_full", 429, _RATE, Fault.PLATFORM, "Too many unfinished jobs. Try again later.",
            "未完成的任务过多，请稍后再试。", Reaction.GIVE_UP),
        _row("budget_exceeded", 429, "insufficient_quota", Fault.PLATFORM,
            "This user or key has reached its limit. Wait until the limit resets, or ask an administrator to raise it.",
            "该用户或密钥的额度已用完。请等待额度重置，或联系管理员提高额度。", Reaction.GIVE_UP),
        _request_row("max_cost_exceeded", 400,
            "The request may cost more than its limit. Nothing was submitted. Request less, or raise the limit.",
            "该请求的费用可能超过其上限，未提交任何内容。请减少请求，或提高上限。"),
        _request_row("confirmation_required", 400,
            "The request costs so much that the user has to agree first. Nothing was submitted.",
            "该请求的费用较高，需先经用户同意。未提交任何内容。"),
        _request_row("cost_not_confirmed", 400, "The user did not agree to the cost. Nothing was submitted.",
            "用户未同意该费用，未提交任何内容。"),
        _row("no_account_available", 503, _SERVER, Fault.PLATFORM,
            "No upstream account can run this job right now. Try again later or add an account.",
            "目前没有上游账号可以执行该任务。请稍后再试或添加账号。", Reaction.RETRY_LATER),
        _row("accounts_need_login", 503, _SERVER, Fault.PLATFORM,
            "The sessions of all accounts that could run this job have expired. The account managers must log in "
            "again and replace the session ids.",
            "可用账号的会话均已失效。请让账号的管理者重新登录并更换 sessionid。", Reaction.RETRY_LATER),
        _row("accounts_blocked", 503, _SERVER, Fault.PLATFORM,
            "Upstream blocks all accounts that could run this job (risk control). The account managers must check "
            "them in a browser and resume them, or add other accounts.",
            "可用账号均被上游风控。请让账号的管理者在浏览器中检查后恢复账号，或添加其他账号。",
            Reaction.RETRY_LATER),
        _row("overloaded", 503, _SERVER, Fault.PLATFORM, "The platform is not ready. Try again later.",
            "平台尚未就绪，请稍后再试。", Reaction.RETRY_LATER),
        _row("interrupted_by_restore", 500, _SERVER, Fault.PLATFORM,
            "The platform was restored from a backup. This job may have run since the backup, so it was not run "
            "again. Retry it if you do not have its result.",
            "平台已从备份恢复，无法确定该任务此后是否运行过，因此没有再次运行。如未得到结果，请重试。",
            Reaction.GIVE_UP),
        _row("internal_error", 500, _SERVER, Fault.PLATFORM,
            "Internal error. Report the request id to the administrator.",
            "内部错误，请把请求编号告知管理员。", Reaction.GIVE_UP),
        # content
        _row("content_policy_violation", 400, _REQUEST, Fault.CONTENT,
            "Upstream rejected the content. Change the prompt and try again.",
            "上游判定内容违规。请修改提示词后重试。", Reaction.GIVE_UP),
        _row("unsupported_language", 400, _REQUEST, Fault.CONTENT,
            "Upstream does not support the language of this text. Use another language.",
            "上游不支持该文本的语言，请换一种语言。", Reaction.GIVE_UP),
        _row("invalid_parameters", 400, _REQUEST, Fault.REQUEST,
            "Upstream rejected the parameters of this job. Change them and try again.",
            "上游不接受该任务的参数，请修改后重试。", Reaction.GIVE_UP),
        # accounts
        _row("upstream_session_expired", 401, "authentication_error", Fault.ACCOUNT,
            "Upstream does not recognize this session (expired, or on another cluster). Log in again and use the new "
            "session id.",
            "上游无法识别该会话（已过期，或属于其他集群）。请重新登录并使用新的 sessionid。", Reaction.OTHER_ACCOUNT),
        _row("insufficient_quota", 429, "insufficient_quota", Fault.ACCOUNT,
            "The upstream account does not have enough credits, or no access to this model or resolution. Top it up, "
            "use another account or request a lower resolution.",
            "上游账号积分不足，或无权使用该模型或分辨率。请充值、换账号或降低分辨率。", Reaction.OTHER_ACCOUNT),
        _row("daily_limit_reached", 429, "insufficient_quota", Fault.ACCOUNT,
            "The upstream account has reached its daily limit. Try again tomorrow or use another account.",
            "上游账号已达到当日上限。请明天再试或换一个账号。", Reaction.OTHER_ACCOUNT),
        _row("account_limited", 429, _RATE, Fault.ACCOUNT,
            "Upstream has limited this account for today. Try again tomorrow or use another account.",
            "上游今天限制了该账号。请明天再试或换一个账号。", Reaction.OTHER_ACCOUNT),
        _row("upstream_permission_denied", 403, "permission_error", Fault.ACCOUNT,
            "Upstream denied permission to this account. Use another account or model.",
            "该账号在上游无权执行此操作，请换一个账号或模型。", Reaction.OTHER_ACCOUNT),
        _row("upstream_consent_required", 403, "permission_error", Fault.ACCOUNT,
            "This model requires first-use consent. Accept its terms on the upstream site with this account.",
            "请先用该账号在上游网站上同意该模型的首次使用条款。", Reaction.OTHER_ACCOUNT),
        _row("upstream_risk_control", 503, _SERVER, Fault.ACCOUNT,
            "Upstream blocked this account or network address (risk control). As far as known, nothing was charged. "
            "Use the account in a browser and do not repeat the request.",
            "上游对该账号或网络地址进行了风控。据目前所知没有扣费。请在浏览器中使用该账号，不要重复提交。",
            Reaction.OTHER_ACCOUNT),
        _row("proxy_unreachable", 502, _SERVER, Fault.ACCOUNT,
            "The proxy of this token cannot be reached, refuses connections, or has a private address. Nothing was "
            "sent without the proxy. Check the proxy or use another one.",
            "该 token 的代理无法连接、拒绝连接或位于内网地址。没有绕过代理发送任何请求。请检查代理或换一个代理。",
            Reaction.OTHER_ACCOUNT),
        _row("concurrency_limit", 429, _RATE, Fault.ACCOUNT,
            "The upstream account has reached its limit of concurrent tasks. Wait until one has finished.",
            "上游账号同时进行的任务已达上限，请等其中一个完成。", Reaction.RETRY_LATER),
        _row("rate_limit_exceeded", 429, _RATE, Fault.ACCOUNT, "Too many requests in a short time. Try again later.",
            "短时间内请求过多，请稍后再试。", Reaction.RETRY_LATER),
        # upstream
        _row("generation_failed", 502, _SERVER, Fault.UPSTREAM,
            "Upstream could not generate a result. Change the prompt or try again later.",
            "上游未能生成结果，请修改提示词或稍后再试。", Reaction.GIVE_UP),
        _row("upstream_error", 502, _SERVER, Fault.UPSTREAM, "Upstream returned an error. Try again later.",
            "上游返回了错误，请稍后再试。", Reaction.GIVE_UP),
        _row("upstream_sign_error", 502, _SERVER, Fault.UPSTREAM,
            "Upstream rejected the request signature. Check the clock of this machine.",
            "上游拒绝了请求签名，请检查本机时钟。", Reaction.GIVE_UP),
        _row("history_unavailable", 502, _SERVER, Fault.UPSTREAM,
            "Upstream no longer has the record of this job. Generate it again.",
            "上游已没有该任务的记录，请重新生成。", Reaction.GIVE_UP),
        _row("upstream_unreachable", 502, _SERVER, Fault.UPSTREAM,
            "Upstream cannot be reached. Check the network of this machine and try again.",
            "无法连接上游，请检查网络后重试。", Reaction.UNCLEAR),
        _row("submit_unclear", 502, _SERVER, Fault.UPSTREAM,
            "It is unknown whether upstream accepted this job, and this cannot be checked. The job was not repeated, "
            "because it may already have been charged. Check the upstream site.",
            "无法确定上游是否接受了该任务，也无法查询。为避免重复扣费，没有再次提交；请在上游网站上查看。",
            Reaction.GIVE_UP),
        _row("stream_broken", 502, _SERVER, Fault.UPSTREAM,
            "The conversation was interrupted. It was not sent again, because upstream may have charged for it. "
            "Everything received and started so far is kept. Send the message again to continue.",
            "对话中途中断。为避免重复扣费，没有重新发送；已有的内容和已开始的任务会保留。如需继续，请重新发送消息。",
            Reaction.GIVE_UP),
        _row("result_unavailable", 502, _SERVER, Fault.UPSTREAM,
            "Upstream finished the job, but its results could not be copied. Check the upstream site.",
            "上游已完成任务，但结果无法复制到本地，请在上游网站上查看。", Reaction.GIVE_UP),
        _row("generation_timeout", 504, _SERVER, Fault.UPSTREAM,
            "The generation did not finish in time. It may still finish upstream; check the job again later.",
            "生成未能按时完成，请稍后查询任务状态。", Reaction.GIVE_UP),
        # end of a job or a wait
        _row("check_timeout", 504, _SERVER, Fault.PLATFORM,
            "The account check did not finish in time. Try again. If it keeps failing, check that a worker is running.",
            "账号检查未能按时完成。请稍后再试；如仍然失败，请检查 worker 是否在运行。", Reaction.GIVE_UP),
        _row("job_cancelled", 409, _REQUEST, Fault.REQUEST, "The job was cancelled. Submit it again if needed.",
            "任务已取消。需要时请重新提交。", Reaction.GIVE_UP),
        _row("queue_timeout", 504, _SERVER, Fault.PLATFORM,
            "No account became available for this job in time. Try again later or add an account.",
            "在规定时间内没有空闲账号，请稍后再试或添加账号。", Reaction.GIVE_UP),
        _row("job_expired", 504, _SERVER, Fault.REQUEST,
            "No account had begun this job when its `expires_at` came. Send it again with more time.",
            "到 `expires_at` 时仍没有账号开始该任务，请留出更多时间后重新提交。", Reaction.GIVE_UP),
    )
}
# fmt: on


class DreameryError(Exception):
    """A failure from the error table. `message` is shown to users and must never contain a secret."""

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        detail: str | None = None,
        status: int | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.kind = ERRORS[code]
        self.message = message or self.kind.message
        self.param = param
        self.retry_after = retry_after
        self.status = status or self.kind.status
        self.headers = headers  # additional response headers
        self.detail = detail  # for logs and the job's timeline: upstream's log id and message
        super().__init__(f"{code}: {self.message}")

    @property
    def code(self) -> str:
        """The stable error code."""
        return self.kind.code
