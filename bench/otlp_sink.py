"""`python -m bench.otlp_sink`: takes spans over OTLP and forgets them unread; prints its port. A process of its own."""

import asyncio
from typing import Any

import grpc

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


async def main() -> None:
    """Serve until killed."""
    server = grpc.aio.server()
    export: Any = grpc.unary_unary_rpc_method_handler(_forget)  # without serializers: bytes in, bytes out
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": export}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def _forget(_: bytes, __: Any) -> bytes:
    return b""


if __name__ == "__main__":
    asyncio.run(main())
