"""The documentation: the OpenAPI document and a page that shows it, both without any other host.

Swagger UI is vendored in static/ from the npm package swagger-ui-dist 5.35.0 (Apache-2.0, its notice beside it).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.problems import RouteNotFound

STATIC = Path(__file__).parent / "static"
PAGE = "docs.html"
ASSETS = {
    "docs.js": "text/javascript",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
#: Swagger UI sets style attributes and shows its icons as data: URLs; nothing else is let in.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _WholeFile(FileResponse):
    """A file that is never sent in parts, as a server may do (RFC 9110, 14.2).

    FileResponse would refuse a wrong Range in plain text, and every error is a problem document.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer (ASGI)."""
        self.headers["Accept-Ranges"] = "none"
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


class DocsRoutes:
    """/openapi.json, /docs and what the page loads."""

    def __init__(self, make_openapi: Callable[[], dict[str, Any]]) -> None:
        self._make_openapi = make_openapi

    async def openapi(self, _: Request) -> Response:
        """Answer the OpenAPI document."""
        return Response(msgspec.json.encode(self._make_openapi()), media_type="application/json")

    async def page(self, _: Request) -> Response:
        """Answer the documentation page."""
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
        return _WholeFile(STATIC / PAGE, headers=headers, media_type="text/html")

    async def asset(self, request: Request) -> Response:
        """Answer one of the page's own files; no other file can be named."""
        name = request.path_params["asset"]
        if name not in ASSETS:
            raise RouteNotFound("There is no such path; /docs lists them.")
        return _WholeFile(STATIC / name, media_type=ASSETS[name])
