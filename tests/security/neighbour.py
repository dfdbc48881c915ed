"""A partner who does nothing wrong, in a process of its own: `python -m tests.security.neighbour HOST:PORT`.

It lists without end, and creates now and then, with the token of HUB_TOKEN. It writes a line for each call: when it
began (the machine's monotonic clock), how long it took, the status. It is a process of its own, since what an attacker
computes in the tests' process would look like a stall of the hub.
"""

import http.client
import os
import sys
import time
from itertools import count

from tests.security.attack import PATH, create

PAUSE_SECONDS = 0.01
PATIENCE_SECONDS = 20.0
#: One call out of so many is a create.
CREATES = 5


def main() -> int:
    headers = {"Authorization": f"Bearer {os.environ['HUB_TOKEN']}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(sys.argv[1], timeout=PATIENCE_SECONDS)
    for number in count():
        is_create = number % CREATES == 0
        body = create(f"{time.time_ns()}") if is_create else None
        began = time.monotonic()
        try:
            connection.request("POST" if is_create else "GET", PATH if is_create else f"{PATH}?limit=1", body, headers)
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            connection.close()
            status = 0
        sys.stdout.write(f"{began} {time.monotonic() - began} {status}\n")
        sys.stdout.flush()
        time.sleep(PAUSE_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
