"""Field types that several schemas share, and the parameters of pagination."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, ConfigDict, StringConstraints, WithJsonSchema

from api.http.bodies.embedded_files import has_reference
from worker.core.catalog.money import CostLimit, read_cost_limit
from worker.core.catalog.provider_data import shipped_model
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id
from worker.core.webhook_policy import check_url

Limit = Annotated[int, Query(ge=1, le=1000)]


After = Annotated[str | None, Query(max_length=60, description="last id of the previous page")]


def after_id(prefix: str, value: str | None) -> UUID | None:
    """Parse the `after` cursor of a page. Raises `invalid_value`."""
    if value is None:
        return None
    found = parse_public_id(prefix, value)
    if found is None:
        raise DreameryError("invalid_value", f"`after` must be an id such as `{prefix}_...`.", param="after")
    return found


MAX_IMAGES = 32
# Models in the examples of the API's documentation.
IMAGE_MODEL, VIDEO_MODEL = shipped_model("image"), shipped_model("video")


def _check_storable(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not contain a NUL character")
    if has_reference(value):
        raise ValueError("contains a file as text; send files in a field of their own")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain an unpaired surrogate") from None
    return value


# Text that Postgres can store and JSON can carry.
Text = Annotated[str, AfterValidator(_check_storable)]


def _check_json(value: Any) -> Any:
    if isinstance(value, str):
        _check_storable(value)
    elif isinstance(value, dict):
        for name, part in value.items():
            _check_storable(name)
            _check_json(part)
    elif isinstance(value, list):
        for part in value:
            _check_json(part)
    return value


# An object of any content that Postgres can store. The parser of bodies limits its depth.
StorableObject = Annotated[dict[str, Any], AfterValidator(_check_json)]


def _check_moment(value: datetime) -> datetime:
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        moment = datetime.min.replace(tzinfo=UTC)
    if not 1970 <= moment.year <= 9000:
        raise ValueError("it must be between the years 1970 and 9000")
    return moment


# A time that Postgres, Python and JavaScript can all carry, in UTC.
Moment = Annotated[AwareDatetime, AfterValidator(_check_moment)]


def _check_metadata(value: dict[str, str]) -> dict[str, str]:
    if len(value) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in value.items()):
        raise ValueError("at most 16 pairs, keys up to 64 and values up to 512 characters")
    return value


def _check_webhook(value: str) -> str:
    if value:
        check_url(value)
    return value


def _check_max_cost(value: Any) -> CostLimit:
    return value if isinstance(value, CostLimit) else read_cost_limit(value)


# An amount of money: 0.5, "0.5" or "0.5 USD".
MaxCost = Annotated[
    CostLimit, BeforeValidator(_check_max_cost), WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]})
]
RETRY_UNCLEAR_TEXT = (
    "true = if no answer came and nobody can know whether upstream did the work, order it once more, which may be "
    "charged twice; otherwise such a job ends as `submit_unclear`"
)
MAX_COST_TEXT = "the most money that the request may cost, such as `0.5` or `0.5 USD`; see `X-Max-Cost`"


Metadata = Annotated[dict[Text, Text], AfterValidator(_check_metadata)]


Webhook = Annotated[Text, AfterValidator(_check_webhook)]


NonEmptyText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_check_storable)]


def lowercase_or_none(value: Any) -> Any:
    """Normalise a keyword to lower case; an empty one counts as absent."""
    return (value.strip().lower() or None) if isinstance(value, str) else value


def example(**fields: Any) -> ConfigDict:
    """Return a `model_config` that shows this example in the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [fields]})
