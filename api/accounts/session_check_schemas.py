"""Bodies of `/token/*`: checks of session ids and their results."""

from pydantic import BaseModel, Field

from api.http.fields import NonEmptyText, example


class TokenCheck(BaseModel):
    """The body of `/token/check`."""

    model_config = example(token="demo:sandbox")  # noqa: S106 - the sandbox session that always works

    token: NonEmptyText = Field(description="a session id in any notation", max_length=4000)


class TokenLive(BaseModel):
    """Whether upstream knows the session."""

    live: bool


class TokenPoints(BaseModel):
    """Remaining credits, by kind."""

    giftCredit: int  # noqa: N815 - clients of other gateways read these names
    purchaseCredit: int  # noqa: N815
    vipCredit: int  # noqa: N815
    totalCredit: int  # noqa: N815


class TokenFailure(BaseModel):
    """Why the check of a session id failed; the same four keys as in an error response."""

    message: str
    type: str
    param: str | None
    code: str


class TokenResult(BaseModel):
    """The result for one session id of the list."""

    token: str = Field(description="masked")
    points: TokenPoints | None = Field(description="null when the check failed")
    credits: TokenPoints | None = Field(
        None, description="only from `/token/receive`: the same numbers as `points`, after claiming"
    )
    received: int | None = Field(None, description="only from `/token/receive`: credits gained")
    error: TokenFailure | None = Field(None, description="present only when something failed")
