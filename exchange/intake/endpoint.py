"""What a row of the endpoint table says. The rows stand beside the calls they describe."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from exchange.intake.parameters import Parameter, Reader
from exchange.intake.service import Intake

Values = dict[str, Any]
# Of a request: the intake, the caller's account (0 where nobody signs), the parameters by name.
Handler = Callable[[Intake, int, Values], Awaitable[object]]
# What a call costs its caller's address, where that depends on the parameters.
Weigh = Callable[[Values], int]


class Security(Enum):
    """Who may make a call."""

    NONE = "anybody"
    KEY = "the owner of an API key, named in the header and not signed with"
    READ = "the signer with any key"
    TRADE = "the signer with a key that may trade"
    WITHDRAW = "the signer with a key that may take money out"
    ADMINISTER = "the signer with a key that may administer the account's keys"

    @property
    def is_signed(self) -> bool:
        """Whether the request must carry a timestamp and a signature."""
        return self not in (Security.NONE, Security.KEY)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One call. `response` is the type of its answer, by which the API's description says what comes back.

    A weight of 0 belongs to order calls, which count against the account's orders and not against the
    caller's address. Of a call that `is_order`, `orders` says how many it counts for in ten seconds. One that
    `needs_past` is refused while the intake reads what happened before it started.

    A handler awaits futures and `Intake.ask` alone: it may run without a task of its own.
    """

    method: str
    path: str
    security: Security
    weight: int | Weigh
    handler: Handler
    parameters: tuple[Parameter, ...] = ()
    response: Any = dict
    is_order: bool = False
    orders: int | Weigh = 1
    needs_past: bool = False
    reader: Reader = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare what every request needs."""
        object.__setattr__(self, "reader", Reader(self.parameters))

    @property
    def is_cancel(self) -> bool:
        """Whether a call only takes orders back; such calls have a budget of their own."""
        return self.method == "DELETE" and self.security is Security.TRADE
