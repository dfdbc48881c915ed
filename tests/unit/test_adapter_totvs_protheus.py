"""What each answer of Protheus means: the tables in the adapter's docstring, row by row."""

import json
import time
from typing import Any

import pytest

from adapter_service.adapters.totvs_errors import may_be_included
from adapter_service.adapters.totvs_protheus import classify, classify_lookup
from adapter_service.answers import Answer, read_answer
from adapter_service.outcome import (
    Absent,
    Delivered,
    Found,
    NotKnown,
    Rejected,
    Throttled,
    Unavailable,
    Unknown,
)
from chassis.http_client import HttpAnswer

KEY = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
HTML = "<html><head><title>500 Internal Server Error</title></head></html>"


def answer(status: int, body: Any = "", **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    return read_answer(HttpAnswer(status=status, headers=headers, body=content, is_complete=True))


def error(code: str, message: str = "Erro", more: str = "Details") -> dict[str, str]:
    return {"code": code, "message": message, "detailedMessage": more}


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        # 2xx: the body decides.
        (200, {"protheusOrderId": "PRO-1", "status": "Created"}, Delivered),
        (201, {"C5_NUM": "000123"}, Delivered),
        (200, {"code": "0", "message": "INCLUIDO", "C5_NUM": "000123"}, Delivered),
        (200, {"code": 200, "message": "OK", "C5_NUM": "000123"}, Delivered),
        (200, {"code": "C-17", "name": "an entity with a code"}, Delivered),
        (202, {"code": 202, "message": "Pedido recebido"}, Delivered),
        (200, {"code": 500, "message": "Erro"}, Rejected),
        (200, {"code": "102", "message": "Erro"}, Rejected),
        (200, {"errorCode": "E7", "message": "Erro"}, Rejected),
        (200, {"code": "E7", "message": "Erro", "success": False}, Rejected),
        # A code that is a word may be a success's or an error's.
        (200, {"code": "OK", "message": "Pedido incluido", "id": "1"}, Unknown),
        (200, {"code": "C0001", "message": "Pedido incluido com sucesso", "protheusOrderId": "1"}, Unknown),
        (202, {"code": "E7", "message": "Erro"}, Unknown),
        (200, error("102"), Rejected),
        (200, {"Code": "102", "Message": "Erro", "DetailedMessage": ""}, Rejected),
        (200, {"errorCode": 403, "errorMessage": "Sem acesso"}, Rejected),
        (200, {"error": "boom"}, Rejected),
        (200, {"success": False}, Rejected),
        (200, "", Unknown),
        (200, {}, Unknown),
        (200, [], Unknown),
        (200, "OK", Unknown),
        (200, '{"protheusOrderId":"PRO', Unknown),
        (200, HTML, Unknown),
        (204, "", Unknown),
        # 500: business errors come so; what is not Protheus' own words is a proxy's, or proves nothing.
        (500, error("103"), Rejected),
        (500, {"errorCode": 500, "errorMessage": "Erro"}, Rejected),
        (500, HTML, Unavailable),
        (500, "", Unknown),
        (500, "Internal Server Error", Unknown),
        (500, {"message": "Internal server error"}, Unknown),
        (500, {"code": "103"}, Unknown),
        # The order is there already.
        (500, error("111", "Pedido ja incluido anteriormente no pedido do Protheus: 000123"), Delivered),
        (422, error("111"), Delivered),
        (400, {"code": 111, "message": "x"}, Delivered),
        (200, error("111"), Delivered),
        (409, error("409", "Pedido já liberado"), Delivered),
        (409, error("409", "Pedido ja foi liberado"), Delivered),
        (409, error("409", "ja esta liberado"), Delivered),
        (409, error("409", "Já existe um pedido com esta chave"), Delivered),
        (409, error("409", "Pedido em processamento"), Rejected),
        (409, error("409", "Pedido já bloqueado"), Rejected),
        (409, error("409", "Cliente já cadastrado"), Rejected),
        (409, error("409", "Titulo ja cadastrado"), Rejected),
        (409, error("409", "Já existe um titulo deste pedido"), Rejected),
        (409, error("409", "Pedido ja esta sendo processado"), Rejected),
        (409, "", Rejected),
        # Something else is there already: a fault of this order.
        (500, error("118", "Item ja incluido neste pedido"), Rejected),
        (500, error("E7", "Produto 001 já incluído no pedido"), Rejected),
        (500, error("E7", "Pedido não incluído"), Rejected),
        (400, error("E7", "Titulo ja incluido"), Rejected),
        (400, error("E7", "Transportadora nao cadastrada; endereco ja incluido"), Rejected),
        (500, error("E7", "Vendedor ja incluido"), Rejected),
        (500, error("E7", "Vendedor do pedido ja incluido"), Rejected),
        (500, error("E7", "Pedido 5: titulo ja incluido"), Rejected),
        (500, error("E7", "Pedido 5 sem titulo ja incluido"), Rejected),
        (500, error("E7", "Pedido titulo 7 ja incluido"), Rejected),
        (500, error("E7", "Pedido 5. Cliente 7 ja incluido"), Rejected),
        (500, error("103", "Pedido ja incluido"), Rejected),
        # Saturated, not broken.
        (503, error("503", "Não há licença disponível"), Throttled),
        (503, "No license available", Throttled),
        (429, error("429"), Throttled),
        (503, error("503", "Fora do ar"), Unavailable),
        (503, "", Unavailable),
        (503, HTML.replace("500", "503"), Unavailable),
        # By the status.
        (302, "", Rejected),
        (303, "", Unknown),
        (400, error("101"), Rejected),
        (403, {"errorCode": 403, "errorMessage": "Sem acesso"}, Rejected),
        (404, "", Rejected),
        (408, "", Unavailable),
        (413, "", Rejected),
        (422, error("104"), Rejected),
        (425, "", Unavailable),
        (501, "", Rejected),
        (502, HTML, Unknown),
        (502, error("502"), Unknown),
        (504, "", Unknown),
        (507, "", Unknown),
        (599, "", Unknown),
    ],
)
def test_an_answer_has_its_outcome(status: int, body: Any, outcome: type) -> None:
    assert type(classify(answer(status, body))) is outcome


@pytest.mark.parametrize(
    "text",
    [
        "Pedido já incluído anteriormente".encode(),
        "Pedido já incluído anteriormente".encode("cp1252"),
        "Pedido já incluído anteriormente".encode().decode("cp1252").encode(),
        b"Pedido j? inclu?do anteriormente",
        "Pedido j\ufffd inclu\ufffddo anteriormente".encode(),
        b"PEDIDO JA INCLUIDO",
        b"Pedido 7 ja foi incluido",
        b"Pedido do cliente 123 ja incluido anteriormente no pedido do Protheus: 000123",
        b"O pedido de venda (ABC/7-1) ja esta incluido",
        b"Erro na inclusao: pedido 7 ja incluido",
        b"Ordem de compra n. 7 j\xe1 inclu\xedda",
        b"Order 3fa85f64-5717-4562-b3fc-2c963f66afa6 ja incluido",
    ],
    ids=repr,
)
def test_already_included_is_understood_however_it_is_spelled(text: bytes) -> None:
    body = b'{"code":"999","message":"' + text + b'"}'

    assert type(classify(answer(500, body))) is Delivered


@pytest.mark.parametrize("text", [" 11111111111111111111", " n1.", " do", " 1", " ", "1"])
def test_a_text_made_to_be_read_slowly_is_not(text: str) -> None:
    started = time.process_time()

    classify(answer(409, error("409", "Pedido" + text * 250)))

    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (error("E7", "Titulo ja incluido"), True),
        (error("E7", "Pedido 5 sem titulo ja incluido"), True),
        ("Registro já incluído", True),
        ('{"code":"E7","message":"j\\u00e1 inclu\\u00eddo"}', True),
        (error("118", "Item ja incluido neste pedido"), False),
        (error("E7", "Pedido nao incluido"), False),
    ],
)
def test_what_is_included_already_may_be_the_order_unless_the_code_says_what_is_wrong(body: Any, asked: bool) -> None:
    assert may_be_included(answer(400, body)) is asked


@pytest.mark.parametrize(
    ("message", "number"),
    [
        ("Pedido ja incluido anteriormente no pedido do Protheus: 000123", "000123"),
        ("Pedido ja incluido anteriormente no pedido do Protheus: PRO-000001", "PRO-000001"),
        ("Pedido ja incluido no Protheus (000123).", "000123"),
    ],
)
def test_the_number_of_the_order_that_is_there_is_given(message: str, number: str) -> None:
    outcome = classify(answer(500, error("111", message)))

    assert isinstance(outcome, Delivered)
    assert json.loads(outcome.response_json)["protheusOrderId"] == number


def test_without_a_number_in_the_text_the_systems_answer_is_given_as_it_is() -> None:
    outcome = classify(answer(500, error("111", "Pedido ja incluido")))

    assert isinstance(outcome, Delivered)
    assert json.loads(outcome.response_json) == error("111", "Pedido ja incluido")


def test_a_refusal_has_the_systems_code_and_words() -> None:
    outcome = classify(answer(500, error("103", "Cliente não encontrado", "A1_COD 000777")))

    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.detail) == ("103", "Cliente não encontrado: A1_COD 000777")


def test_a_refusal_without_words_has_the_status() -> None:
    outcome = classify(answer(404))

    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.detail) == ("404", "HTTP 404 without a body")


def test_no_licence_passes_the_wait_on() -> None:
    outcome = classify(answer(503, error("503", "Sem licenças"), **{"Retry-After": "30"}))

    assert isinstance(outcome, Throttled)
    assert outcome.retry_after_seconds == 30


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, {"items": [{"integrationId": KEY, "protheusOrderId": "PRO-1"}], "hasNext": False}, Found),
        (200, {"items": [{"protheusOrderId": "PRO-1"}], "hasNext": "false"}, Found),
        (200, {"items": [{"integrationId": "other"}, {"integrationId": KEY}]}, Found),
        (200, {"items": [], "hasNext": False}, Absent),
        (200, {"items": [], "hasNext": "False"}, Absent),
        (200, {"items": []}, Absent),
        (200, {"items": [], "hasNext": True}, NotKnown),
        (200, {"items": [], "hasNext": "true"}, NotKnown),
        # Filters that Protheus does not know are passed over: then any order comes back.
        (200, {"items": [{"integrationId": "other"}], "hasNext": False}, NotKnown),
        (200, {"items": [{"protheusOrderId": "PRO-1"}, {"protheusOrderId": "PRO-2"}]}, NotKnown),
        (200, {"items": [{"protheusOrderId": "PRO-1"}], "hasNext": True}, NotKnown),
        (200, {"items": None}, NotKnown),
        (200, {"items": ["PRO-1"]}, NotKnown),
        (200, {}, NotKnown),
        (200, [], NotKnown),
        (200, "", NotKnown),
        (200, HTML, NotKnown),
        (200, error("102"), NotKnown),
        (200, {"items": [], "error": "boom"}, NotKnown),
        (204, "", NotKnown),
        (302, "", NotKnown),
        (404, error("404"), NotKnown),
        (500, error("500"), NotKnown),
        (503, "", NotKnown),
    ],
)
def test_a_lookup_has_its_outcome(status: int, body: Any, outcome: type) -> None:
    assert type(classify_lookup(answer(status, body), "integrationId", KEY)) is outcome


def test_a_found_order_is_given_digit_for_digit() -> None:
    body = f'{{"items":[{{"integrationId":"{KEY}","total":15000.00,"token":"x"}}],"hasNext":false}}'

    outcome = classify_lookup(answer(200, body), "integrationId", KEY)

    assert isinstance(outcome, Found)
    assert outcome.response_json == f'{{"integrationId":"{KEY}","total":15000.00,"token":"***"}}'


def test_an_order_held_twice_is_said_so() -> None:
    outcome = classify_lookup(answer(200, {"items": [{"integrationId": KEY}] * 2}), "integrationId", KEY)

    assert isinstance(outcome, Found)
    assert (outcome.hits, outcome.detail) == (2, "2 orders have this id")


@pytest.mark.parametrize(
    "items",
    [[{"protheusOrderId": "PRO-1"}], [{"integrationId": KEY}], [{"integrationId": KEY}, {"integrationId": "other"}]],
)
def test_an_order_held_once_is_no_duplicate(items: list[dict[str, str]]) -> None:
    outcome = classify_lookup(answer(200, {"items": items, "hasNext": False}), "integrationId", KEY)

    assert isinstance(outcome, Found)
    assert (outcome.hits, outcome.detail) == (1, "")
