"""Reads key sets from https URLs; a module apart, since its library takes memory in every service that imports it."""

import asyncio

import httpx

FETCH_SECONDS = 5.0
MAX_KEY_SET_BYTES = 256 * 1024


class HttpsKeySets:
    """Fetches key sets over connections that are kept between two readings."""

    def __init__(self) -> None:
        self._client = httpx.AsyncClient(timeout=FETCH_SECONDS, follow_redirects=False)

    async def fetch(self, url: str) -> bytes:
        """Raises: OSError when it cannot be had in FETCH_SECONDS; ValueError when it is too long."""
        content = bytearray()
        try:
            async with asyncio.timeout(FETCH_SECONDS), self._client.stream("GET", url) as response:
                response.raise_for_status()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > MAX_KEY_SET_BYTES:
                        raise ValueError("the key set is too long")
        except httpx.HTTPError as error:
            raise OSError(str(error)) from error
        return bytes(content)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
