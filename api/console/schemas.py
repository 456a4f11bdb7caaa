"""Responses of the console's own routes."""

from typing import Literal

from pydantic import BaseModel, Field

from api.http.fields import example


class ConsoleSession(BaseModel):
    """The signed-in user of the console and their permissions."""

    model_config = example(
        object="console.session",
        user="admin",
        role="admin",
        scopes=["admin", "generate", "read"],
        models=None,
        csrf_token="0f1e...",  # noqa: S106
        version="0.1.0",
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
