"""The few calls outside /fapi and /futures that clients make when they start.

There is no spot, margin or wallet venue here: of it there is a clock, and lists with nothing in them.
"""

from exchange.intake.endpoint import Endpoint, Security, Values
from exchange.intake.market import data
from exchange.intake.market.answers import Nothing, ServerTime
from exchange.intake.service import Intake


async def nothing_listed(intake: Intake, account_id: int, values: Values) -> list[Nothing]:
    """Return an empty list: no coins can be sent anywhere, no pairs be traded on margin."""
    return []


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/api/v3/ping", Security.NONE, 1, data.ping, response=Nothing),
    Endpoint("GET", "/api/v3/time", Security.NONE, 1, data.server_time, response=ServerTime),
    *(
        Endpoint("GET", path, security, 10, nothing_listed, response=list[Nothing])
        for path, security in (
            ("/sapi/v1/capital/config/getall", Security.READ),
            ("/sapi/v1/margin/isolated/allPairs", Security.READ),
            ("/sapi/v1/margin/allPairs", Security.KEY),
        )
    ),
)
