"""Bodies of `/token/*`: what is asked about session ids, and what is told of them."""

from pydantic import BaseModel, Field

from api.http.fields import NonEmptyText, example


class TokenCheck(BaseModel):
    """The body of `/token/check`."""

    model_config = example(token="demo:sandbox")  # noqa: S106 - the session that always works under `dreamery up`

    token: NonEmptyText = Field(description="a session id in any notation", max_length=4000)


class TokenLive(BaseModel):
    """Whether upstream knows the session."""

    live: bool


class TokenPoints(BaseModel):
    """Credits left, by kind."""

    giftCredit: int  # noqa: N815 - names that other gateways' clients read
    purchaseCredit: int  # noqa: N815
    vipCredit: int  # noqa: N815
    totalCredit: int  # noqa: N815


class TokenFailure(BaseModel):
    """Why a session id has no numbers, or could not take any; the same four keys as in an error answer."""

    message: str
    type: str
    param: str | None
    code: str


class TokenResult(BaseModel):
    """One session id of a list."""

    token: str = Field(description="masked")
    points: TokenPoints | None = Field(description="null when it could not be asked")
    credits: TokenPoints | None = Field(None, description="of `/token/receive`: the same as `points`, afterwards")
    received: int | None = Field(None, description="of `/token/receive`: credits gained")
    error: TokenFailure | None = Field(None, description="only there when something failed")
