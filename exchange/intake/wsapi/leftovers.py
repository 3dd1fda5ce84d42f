"""Parameters that ccxt.pro leaves in an order beside those that it has translated them to.

It makes a request as for HTTP, where it takes its own names out, and then adds everything that its caller
gave once more. Refusing what is left over would refuse its stops and its post-only orders; so a name of its
own is dropped where its translation is there, and nowhere else.
"""

from collections.abc import Mapping

from exchange.intake.endpoint import Endpoint

_POST_ONLY, _GOOD_TILL_CROSSING = "postOnly", "GTX"

# By path: ccxt's own name, and what says the same as the API calls it.
_TRANSLATED: Mapping[str, Mapping[str, str]] = {
    "/fapi/v1/order": {"clientOrderId": "newClientOrderId"},
    "/fapi/v1/algoOrder": {
        "clientOrderId": "clientAlgoId",
        "stopPrice": "triggerPrice",
        "stopLossPrice": "triggerPrice",
        "takeProfitPrice": "triggerPrice",
        "trailingPercent": "callbackRate",
        "trailingTriggerPrice": "activatePrice",
    },
}


def drop_leftovers(endpoint: Endpoint, parameters: dict[str, str]) -> None:
    """Take out of a new order what it says twice."""
    translated = _TRANSLATED.get(endpoint.path)
    if translated is None or endpoint.method != "POST":
        return
    for leftover, name in translated.items():
        if leftover in parameters and name in parameters:
            del parameters[leftover]
    if _POST_ONLY in parameters and parameters.get("timeInForce") == _GOOD_TILL_CROSSING:
        del parameters[_POST_ONLY]
