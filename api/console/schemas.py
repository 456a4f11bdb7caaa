"""Bodies of the console's own routes."""

from importlib.metadata import version as installed_version
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.http.fields import Text, example
from worker.core.security.passwords import MAX_LENGTH


class ConsoleSession(BaseModel):
    """The signed-in user of the console and their permissions."""

    model_config = example(
        object="console.session",
        user="admin",
        role="admin",
        scopes=["admin", "generate", "read"],
        models=None,
        csrf_token="0f1e...",  # noqa: S106
        version=installed_version("dreamery"),
    )

    object: Literal["console.session"]
    user: str
    role: str
    scopes: list[str] = Field(description="scopes of the session: `generate`, `read`, `admin`")
    models: list[str] | None = Field(description="models that the key is limited to; null = all")
    csrf_token: str = Field(description="send it as `X-CSRF-Token` with every request that changes something")
    version: str = Field(description="version of this server")


class ConsoleSignedOut(BaseModel):
    """The session has ended."""

    object: Literal["console.session.deleted"]
    deleted: Literal[True]


_Secret = Annotated[Text, StringConstraints(min_length=1, max_length=MAX_LENGTH)]
_KEEP = Field(False, description="the browser keeps the session when it closes")


class KeepSignedIn(BaseModel):
    """How long a session lasts."""

    model_config = example(keep=True) | ConfigDict(extra="forbid")

    keep: bool = _KEEP


DO_NOT_KEEP = KeepSignedIn()


class PasswordSignIn(BaseModel):
    """The name and the password of a user."""

    model_config = example(name="alice", password="several words together", keep=True) | ConfigDict(  # noqa: S106
        extra="forbid"
    )

    name: Annotated[Text, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
    password: _Secret
    keep: bool = _KEEP


class InvitationToken(BaseModel):
    """The secret of an invitation: the part of its link behind `#`."""

    model_config = example(token="q3Zc...") | ConfigDict(extra="forbid")  # noqa: S106

    token: _Secret


class InvitationUse(InvitationToken):
    """An invitation to use, and the password that the user chooses, if any."""

    model_config = example(token="q3Zc...", password="several words together") | ConfigDict(extra="forbid")  # noqa: S106

    password: _Secret | None = Field(None, description="to sign in with later; null = none")
    keep: bool = Field(True, description="the browser keeps the session when it closes")


class Invitation(BaseModel):
    """Who is invited."""

    model_config = example(object="invitation", user="alice", state="open", expires_at=1796032800)

    object: Literal["invitation"]
    user: str
    state: Literal["open", "used", "expired", "disabled"]
    expires_at: int


class PasswordChange(BaseModel):
    """A new password of the signed-in user."""

    model_config = example(current=None, password="several words together") | ConfigDict(extra="forbid")  # noqa: S106

    current: _Secret | None = Field(None, description="the present one, if there is one")
    password: _Secret


class OpenSession(BaseModel):
    """A browser in which the user is signed in."""

    model_config = example(
        id="session_01a2",
        object="console.sign_in",
        method="password",
        persistent=True,
        device="Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0",
        address="192.0.2.7",
        key=None,
        current=True,
        created_at=1796032800,
        last_used_at=1796032900,
        expires_at=1798624800,
    )

    id: str
    object: Literal["console.sign_in"]
    method: Literal["key", "password", "invitation", "oidc"]
    persistent: bool
    device: str = Field(description="`User-Agent` of the browser")
    address: str
    key: str | None = Field(description="name of the API key that signed in; null = it was none")
    current: bool = Field(description="the session that asks")
    created_at: int
    last_used_at: int
    expires_at: int


class SignInMethods(BaseModel):
    """How a user can sign in, and where it is signed in now."""

    model_config = example(
        object="sign_in", user="alice", password=True, invitation_expires_at=None, identities=[], sessions=[]
    )

    object: Literal["sign_in"]
    user: str
    password: bool = Field(description="has a password")
    invitation_expires_at: int | None = Field(description="of the open invitation; null = there is none")
    identities: list[str] = Field(description="OpenID providers that know the user")
    sessions: list[OpenSession]
