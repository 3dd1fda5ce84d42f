"""The rows of Foldex's own calls. They weigh what a call of Binance's of the same kind does."""

from events.values import MarginMode
from exchange.intake.endpoint import Endpoint, Security
from exchange.intake.foldex import description, health, keys, margin, orders, trials, venue
from exchange.intake.parameters import Parameter, boolean, choice, decimal, text, whole
from exchange.intake.trade.answers import OrderAnswer
from exchange.intake.trade.declared import LEG, NEW_ORDER, SYMBOL

_READ, _TRADE, _ADMINISTER = Security.READ, Security.TRADE, Security.ADMINISTER
_MODES = {mode.name: mode for mode in MarginMode}
_MARGIN = Parameter("margin", decimal)
_SWITCH = (SYMBOL, choice("marginMode", _MODES, required=True), _MARGIN)
_ORDER = (*NEW_ORDER, choice("marginMode", _MODES), _MARGIN)
_FILL = choice("fill", {each: each for each in (trials.WHOLE, trials.BOOK)})
_AMOUNT = Parameter("amount", decimal, required=True)
_LEVERAGE = (SYMBOL, Parameter("leverage", whole, required=True))
_NEW_KEY = (
    Parameter("permissions", keys.permissions, required=True),
    Parameter("networks", text),
    Parameter("publicKey", text),
)
_KEY = Parameter("apiKey", text, required=True)

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/foldex/v1/openapi.json", Security.NONE, 1, description.openapi),
    Endpoint("GET", "/foldex/v1/sequence", Security.NONE, 1, venue.sequence, response=venue.Sequence),
    Endpoint("GET", "/foldex/v1/digest", Security.NONE, 20, venue.digest, response=venue.Digest),
    Endpoint("GET", "/foldex/v1/marginHealth", _READ, 5, health.margin_health, response=health.AccountHealth),
    Endpoint(
        "GET",
        "/foldex/v1/whatIf/order",
        _READ,
        5,
        trials.what_if_order,
        (*_ORDER, _FILL),
        response=trials.WhatIf,
    ),
    Endpoint(
        "GET",
        "/foldex/v1/whatIf/leverage",
        _READ,
        5,
        trials.what_if_leverage,
        _LEVERAGE,
        response=trials.WhatIf,
    ),
    Endpoint(
        "GET", "/foldex/v1/whatIf/marginMode", _READ, 5, trials.what_if_mode, _SWITCH, response=trials.WhatIf
    ),
    Endpoint(
        "POST",
        "/foldex/v1/marginMode",
        _TRADE,
        1,
        margin.set_margin_mode,
        (*_SWITCH, Parameter("dryRun", boolean)),
        response=margin.ModeSwitch,
    ),
    Endpoint(
        "POST",
        "/foldex/v1/margin",
        _TRADE,
        1,
        margin.transfer_margin,
        (SYMBOL, _AMOUNT, LEG),
        response=margin.MarginTransfer,
    ),
    Endpoint(
        "POST",
        "/foldex/v1/order",
        _TRADE,
        0,
        orders.place_order,
        _ORDER,
        response=OrderAnswer,
        is_order=True,
    ),
    Endpoint(
        "POST",
        "/foldex/v1/withdraw",
        Security.WITHDRAW,
        1,
        margin.withdraw,
        (_AMOUNT,),
        response=margin.Withdrawal,
    ),
    Endpoint("GET", "/foldex/v1/apiKeys", _ADMINISTER, 5, keys.keys, response=list[keys.Key]),
    Endpoint("POST", "/foldex/v1/apiKey", _ADMINISTER, 5, keys.add_key, _NEW_KEY, response=keys.MadeKey),
    Endpoint(
        "DELETE", "/foldex/v1/apiKey", _ADMINISTER, 1, keys.remove_key, (_KEY,), response=keys.RemovedKey
    ),
)
