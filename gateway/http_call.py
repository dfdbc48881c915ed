"""One call and its answer on a connection: uvicorn's cycle, which sends the head of an answer with its body.

uvicorn writes them apart and looks at every header twice: as much work as all the rest of the connection.
"""

from typing import cast

from uvicorn._types import ASGISendEvent, HTTPResponseBodyEvent, HTTPResponseStartEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

#: What would end a header's line and begin another (RFC 9110, 5.5).
_CONTROLS = bytes({*range(32), 127} - {ord("\t")})


class Call(RequestResponseCycle):
    """One call of a partner."""

    #: The head of the answer, until the first part of its body comes.
    _head: HTTPResponseStartEvent | None = None

    async def send(self, message: ASGISendEvent) -> None:
        """Send a part of the answer (ASGI). Raises: RuntimeError when it is none that could follow."""
        if message["type"] == "http.response.start" and not self.response_started:
            self.response_started = True
            self._head = message
            return
        head, self._head = self._head, None
        if head is not None:
            if self._write_whole(head, cast(HTTPResponseBodyEvent, message)):
                return
            self.response_started = False
            await super().send(head)
        await super().send(message)

    def _write_whole(self, head: HTTPResponseStartEvent, message: HTTPResponseBodyEvent) -> bool:
        """Write an answer that is all here, on a connection that stays; whatever else is left to uvicorn."""
        body = message.get("body", b"")
        headers = [*self.default_headers, *head["headers"]]
        lines = STATUS_LINE[head["status"]] + b"\r\n".join(map(b": ".join, headers))
        is_whole = (b"content-length", b"%d" % len(body)) in headers and not message.get("more_body")
        is_safe = len(lines.translate(None, _CONTROLS)) == len(lines) - 2 * len(headers)
        stays = self.keep_alive and lines.find(b"\r\nconnection:") < 0
        can_write = not self.disconnected and not self.flow.write_paused and self.scope["method"] != "HEAD"
        if not (is_whole and is_safe and stays and can_write):
            return False
        self.waiting_for_100_continue = False
        self.transport.write(b"%b\r\n\r\n%b" % (lines, body))
        self.response_complete = True
        self.message_event.set()
        self.on_response()
        return True
