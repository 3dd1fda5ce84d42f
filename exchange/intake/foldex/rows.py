"""The rows of Foldex's own calls. They weigh what a call of Binance's of the same kind does."""

from exchange.intake.endpoint import Endpoint, Security
from exchange.intake.foldex import description

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/foldex/v1/openapi.json", Security.NONE, 1, description.openapi),
)
