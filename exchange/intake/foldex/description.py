"""The description of the whole API, as the API itself tells it."""

from functools import cache

import msgspec

from exchange.intake.endpoint import Values
from exchange.intake.openapi import describe
from exchange.intake.service import Intake


async def openapi(intake: Intake, account_id: int, values: Values) -> object:
    """Return the OpenAPI description of all calls."""
    return encoded()


@cache
def encoded() -> msgspec.Raw:
    """Return the description as JSON, made once."""
    # Here, since the table has the row of this very call.
    from exchange.intake.endpoints import ENDPOINTS

    return msgspec.Raw(msgspec.json.encode(describe(ENDPOINTS)))
