"""Answers of the console's own routes."""

from typing import Literal

from pydantic import BaseModel, Field

from api.http.fields import example


class ConsoleSession(BaseModel):
    """Who is signed in to the console, and what they may do."""

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
    scopes: list[str] = Field(description="what the key may do: of `generate`, `read`, `admin`")
    models: list[str] | None = Field(description="the models the key is limited to; null = all")
    csrf_token: str = Field(description="send as `X-CSRF-Token` with every request that changes something")
    version: str = Field(description="of this server")


class ConsoleSignedOut(BaseModel):
    """The session is over."""

    object: Literal["console.session.deleted"]
    deleted: Literal[True]
