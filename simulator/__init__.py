"""External systems to develop and measure against: TOTVS Protheus and a plain JSON endpoint, with faults on demand.

One real HTTP process, run by `python -m simulator [--address host:port] [--state file]`. It knows nothing of the hub.
SIGTERM ends it with exit status 0; calls that take longer than a second to finish are cut.

Start:  HUB_SIMULATOR_ADDRESS (127.0.0.1:8090, port 0 = any free one), HUB_SIMULATOR_STATE (a file of stored orders,
        reloaded at start; empty = memory only), PROTHEUS_TOKEN (the bearer token of Protheus calls, `simulator-token`).

Protheus (bearer token; errors in the envelope {code, message, detailedMessage})
  POST /protheus/v1/orders                       200 {protheusOrderId, status, timestamp}; 500 code 104 without an
                                                 `orderId`; 400 code 101 when the body is no JSON object; 401
  GET  /protheus/v1/orders?integrationId=ID      200 {items, hasNext}; also externalId=; empty items = absent
Plain JSON (no authentication)
  POST /orders                                   200 {id, status}
  GET  /orders?key=ID                            200 the order with this integrationId, or without one and with this
                                                 Idempotency-Key; 404
Token
  POST /oauth2/token                             client_credentials or password; a secret or password `wrong` gets 401
Every one of them also below /t/{name}/...: an independent target with its own orders, faults and settings. The others
belong to the target `default`. A target exists from its first use.

Administration (?target=NAME; reading, clearing and resetting without it means every target, setting means `default`)
  POST   /_sim/faults       201; {target, kind, times (null = until cleared), match, external_order_id, status,
                            retry_after, delay_seconds, body, content_type, location, mebibytes}; kinds: see faults.py
  GET    /_sim/faults       those that wait, in order; DELETE clears them
  POST   /_sim/settings     {target, latency_seconds, idempotency, duplicates, lookup, token_seconds, concurrency};
                            meanings: see targets.py; GET reads them
  GET    /_sim/orders       ?limit=&after=SEQUENCE: {count, items}, each with its body exactly as received
  GET    /_sim/orders/count
  GET    /_sim/orders/duplicates   orders held more than once, by integrationId or else by key
  GET    /_sim/calls        the last 10,000 calls (?limit= for the newest only); status null = no answer was sent (yet)
  POST   /_sim/reset        forgets orders, faults, settings and calls
  GET    /_sim/health       200
"""
