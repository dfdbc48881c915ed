"""Ask a service whether it is healthy: `health.py HOST:PORT` over gRPC, `health.py http://HOST:PORT/path` over HTTP.

Containers use it as their health check, since the image has neither curl nor grpc_health_probe. Exits 0 or 1.
"""

import sys
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 3


def answers_http(url: str) -> bool:
    """Tell whether `url` answers with a 2xx status in time, asked without the environment's proxies."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=TIMEOUT_SECONDS) as answer:
            return bool(200 <= answer.status < 300)
    except (urllib.error.URLError, OSError):
        return False


def serves_rpc(address: str) -> bool:
    """Tell whether the gRPC server at `address` says SERVING in time."""
    import grpc
    from grpc_health.v1 import health_pb2

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS, wait_for_ready=True)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def main(arguments: list[str]) -> int:
    match arguments:
        case [url] if url.startswith("http://"):
            return 0 if answers_http(url) else 1
        case [address]:
            return 0 if serves_rpc(address) else 1
        case _:
            print("usage: health.py HOST:PORT | http://HOST:PORT/path", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
