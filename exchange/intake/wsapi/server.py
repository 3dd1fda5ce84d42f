"""The WebSocket API's place on the public listener: connections made, looked after and ended."""

import asyncio

from aiohttp import web

from exchange.intake.errors import BAD_REQUEST, NO_SUCH_PATH, OVERLOADED
from exchange.intake.gate import Call, Gate
from exchange.intake.wsapi.socket import RETURN_LIMITS, Socket

PATHS = ("/ws-fapi/v1", "/ws-fapi/v1/")
MESSAGE_BYTES_MAX = 16 * 1024
CONNECT_WEIGHT = 5
# A connection that does not answer a ping within half of this is dead. Binance's servers ask every 3 minutes.
HEARTBEAT_S = 180.0
LIFE_S = 24 * 3600.0
CONNECTIONS_MAX = 1_024
PATH_SHOWN_CHARS_MAX = 100


class WebSocketApi:
    """Answers what comes to `/ws-fapi/v1`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._open: set[Socket] = set()

    async def handle(self, request: web.BaseRequest, path: str, call: Call) -> web.StreamResponse:
        """Serve a connection until it ends.

        Raises:
            ApiError: it is none; or as `Gate.connection`.
        """
        with self._gate.connection(call, CONNECT_WEIGHT):
            return await self._connect(request, path, call.remote)

    async def _connect(self, request: web.BaseRequest, path: str, remote: str) -> web.StreamResponse:
        if path not in PATHS:
            raise NO_SUCH_PATH.error(path=path[:PATH_SHOWN_CHARS_MAX], method=request.method)
        response = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MESSAGE_BYTES_MAX, compress=False
        )
        if len(self._open) >= CONNECTIONS_MAX:
            raise OVERLOADED.error()
        if not response.can_prepare(request).ok:
            raise BAD_REQUEST.error(what="it does not ask for a WebSocket")
        try:
            await response.prepare(request)
        except ConnectionError:
            return response  # whoever asked is gone
        tells_limits = f"{RETURN_LIMITS}=false" not in request.raw_path
        socket = Socket(self._gate, remote, response, tells_limits=tells_limits)
        transport = request.transport
        if transport is None:
            return response
        end = asyncio.get_running_loop().call_later(LIFE_S, lambda: asyncio.ensure_future(socket.close()))
        self._open.add(socket)
        self._gate.intake.metrics.sockets = len(self._open)
        try:
            await socket.serve(transport)
        finally:
            end.cancel()
            self._open.discard(socket)
            self._gate.intake.metrics.sockets = len(self._open)
        return response

    async def close(self) -> None:
        """Finish the requests under way, and end every connection."""
        await asyncio.gather(*(socket.close() for socket in list(self._open)))
