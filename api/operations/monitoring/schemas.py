"""Bodies of the alert routes. Times are unix seconds."""

from email.utils import parseaddr
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from api.http.fields import Text, example
from worker.core.messages.alert_texts import Language
from worker.core.observability.alert_rules import MOST_REPEAT_HOURS, RuleName, Side, Unit
from worker.core.webhook_policy import check_url

_LATEST = 4_000_000_000
_Moment = Annotated[int, Field(ge=0, le=_LATEST)]
AlertStatus = Literal["firing", "resolved"]
Kind = Literal["webhook", "email"]


def _checked_url(url: str) -> str:
    check_url(url)
    return url


def _checked_address(address: str) -> str:
    name, found = parseaddr(address)
    local, _, domain = found.partition("@")
    plain = found == address and not name and address.isascii() and address.isprintable()
    if not plain or not local or not domain or any(char in address for char in ' ,;:<>()[]"\\'):
        raise ValueError("must be one mail address, such as ops@example.com")
    return address


def _checked_host(host: str) -> str:
    if not host.isascii() or any(not (char.isalnum() or char in "-._:") for char in host):
        raise ValueError("must be a host name or an IP address")
    return host


_Address = Annotated[Text, Field(max_length=254), AfterValidator(_checked_address)]


class Alert(BaseModel):
    """What a rule found: from the first minute in which it fired to the first in which it did not."""

    id: str = Field(examples=["alert_0192a1b2c3d47e8f9a0b1c2d3e4f5a6b"])
    object: Literal["alert"]
    rule: RuleName
    status: AlertStatus
    subject: str | None = Field(description="the account, kind of job or queue; null = the platform")
    label: str = Field(description="the subject as people know it, or what the storage says")
    text: str = Field(description="in the language of the request")
    value: float
    threshold: float
    started_at: int
    resolved_at: int | None
    notified_at: int | None = Field(description="the last message about it; null = none was sent")
    muted_until: int | None


class AlertList(BaseModel):
    """One page of alerts, the newest first."""

    object: Literal["list"]
    data: list[Alert]
    has_more: bool


class AlertChange(BaseModel):
    """Mute an alert."""

    model_config = example(muted_until=1796032800) | ConfigDict(extra="forbid")

    muted_until: _Moment | None = Field(description="no messages until then; null = send them")


class AlertRule(BaseModel):
    """A rule as it is in force."""

    object: Literal["alert.rule"]
    name: RuleName
    enabled: bool
    threshold: float
    unit: Unit
    fires: Side = Field(description="the side of the threshold that is bad")
    least: float = Field(description="limits of the threshold")
    most: float
    default_threshold: float
    repeat_hours: float = Field(description="a message about the same subject comes at most this often")
    muted_until: int | None
    firing: int = Field(description="number of alerts now")


class AlertRuleList(BaseModel):
    """All rules."""

    object: Literal["list"]
    data: list[AlertRule]
    has_more: Literal[False]


class AlertRuleChange(BaseModel):
    """Changes of a rule; omitted fields keep their value."""

    model_config = example(threshold=50, repeat_hours=6) | ConfigDict(extra="forbid")

    enabled: bool | None = None
    threshold: float | None = Field(None, ge=0, le=1e9, allow_inf_nan=False)
    repeat_hours: float | None = Field(None, ge=0.25, le=MOST_REPEAT_HOURS, allow_inf_nan=False)
    muted_until: _Moment | None = Field(None, description="no messages of this rule until then; null = send them")


class MailServer(BaseModel):
    """The mail server of a channel, without its password."""

    model_config = ConfigDict(extra="forbid")

    host: Annotated[Text, Field(min_length=1, max_length=253), AfterValidator(_checked_host)]
    port: int = Field(587, ge=1, le=65_535)
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="`starttls` (usually port 587), `tls` (465), or `none` for a server without login"
    )
    username: Text = Field("", max_length=254, description="empty = no login")
    sender: _Address
    recipients: list[_Address] = Field(min_length=1, max_length=10)


class ChannelFields(BaseModel):
    """What a channel has whatever its kind."""

    name: Text = Field(min_length=1, max_length=80)
    language: Language = "en"
    rules: list[RuleName] | None = Field(None, max_length=50, description="null = all rules")


class ChannelCreate(ChannelFields):
    """A new channel: a webhook with `url`, or mail with `mail`."""

    model_config = example(
        kind="email",
        name="on call",
        language="en",
        mail={
            "host": "smtp.example.com",
            "username": "dreamery",
            "sender": "dreamery@example.com",
            "recipients": ["ops@example.com"],
        },
        password="the password of the mail server",  # noqa: S106 - an example
    ) | ConfigDict(extra="forbid")

    kind: Kind
    url: Annotated[Text, AfterValidator(_checked_url)] | None = Field(None, description="of a webhook")
    mail: MailServer | None = Field(None, description="of mail")
    password: SecretStr | None = Field(None, max_length=500, description="of the login to the mail server")

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        if (self.kind == "webhook") != (self.url is not None) or (self.kind == "email") != (self.mail is not None):
            raise ValueError("A webhook channel needs `url`, a mail channel needs `mail`, and neither has the other.")
        if self.mail is not None:
            check_login(self.mail, has_password=bool(self.password and self.password.get_secret_value()))
        elif self.password is not None:
            raise ValueError("A webhook channel has no `password`: its messages are signed.")
        return self


class ChannelChange(BaseModel):
    """Changes of a channel; omitted fields keep their value, also the password."""

    model_config = example(disabled=False) | ConfigDict(extra="forbid")

    name: Text | None = Field(None, min_length=1, max_length=80)
    language: Language | None = None
    rules: list[RuleName] | None = Field(None, max_length=50, description="null = all rules")
    url: Annotated[Text, AfterValidator(_checked_url)] | None = None
    mail: MailServer | None = None
    password: SecretStr | None = Field(None, max_length=500)
    disabled: bool | None = Field(None, description="true = send nothing; false = send again and forget failures")


class LastMessage(BaseModel):
    """What became of the last message."""

    event: str = Field(examples=["alert.firing", "alert.repeated", "alert.resolved", "webhook.test"])
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    error: str | None
    created_at: int


class Channel(BaseModel):
    """Where alerts are sent."""

    id: str = Field(examples=["whe_0192a1b2c3d47e8f9a0b1c2d3e4f5a6b"])
    object: Literal["alert.channel"]
    kind: Kind
    name: str
    language: Language
    rules: list[str] | None
    url: str | None
    mail: dict[str, Any] | None
    disabled: bool
    disabled_reason: str | None
    failing_since: int | None
    last_message: LastMessage | None
    created_at: int


class ChannelWithSecret(Channel):
    """A new channel. The secret that signs the messages of a webhook is shown only here."""

    secret: str | None


class ChannelList(BaseModel):
    """All channels, oldest first."""

    object: Literal["list"]
    data: list[Channel]
    has_more: Literal[False]


class DeletedChannel(BaseModel):
    """Confirmation that a channel was deleted."""

    id: str
    object: Literal["alert.channel"]
    deleted: Literal[True]


def check_login(mail: MailServer, *, has_password: bool) -> None:
    """Check that a password is not sent in clear, and belongs to a name. Raises ValueError."""
    if has_password and mail.security == "none":
        raise ValueError("A password needs `security` `starttls` or `tls`, so that nobody can read it on the way.")
    if has_password != bool(mail.username):
        raise ValueError("Send `mail.username` and `password` together, or neither.")
