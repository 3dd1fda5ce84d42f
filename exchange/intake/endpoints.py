"""The endpoint table: every call of the public listener, what it reads, who may make it, what it weighs.

Routing, parsing and validation are driven by these rows alone.
"""

from exchange.intake.endpoint import Endpoint
from exchange.intake.market import rows as market_rows
from exchange.intake.trade import rows as trade_rows

ENDPOINTS: tuple[Endpoint, ...] = (*market_rows.ENDPOINTS, *trade_rows.ENDPOINTS)

ROUTES: dict[tuple[str, str], Endpoint] = {(row.method, row.path): row for row in ENDPOINTS}
