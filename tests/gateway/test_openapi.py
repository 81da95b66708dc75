"""The description says what is so: of each route, and of nothing else."""

import re

import msgspec
import pytest

from feedhandler.gateway import api
from feedhandler.gateway.access import Access
from feedhandler.gateway.app import Parts
from feedhandler.gateway.openapi import PATH, description, document
from feedhandler.gateway.operations import routes
from feedhandler.runtime import config


@pytest.fixture(scope="module")
def parts():
    settings = config.parse("[exchanges.binance]\n[exchanges.bybit]\n", "test.toml")
    access = Access(settings.gateway, "0123456789abcdef")
    return Parts(
        config=settings,
        access=access,
        market_data=None,
        hours=None,
        history=None,
        events=None,
        accounts=None,
        control=None,
    )


@pytest.fixture(scope="module")
def described(parts):
    made = document(api.operations(parts), parts.config.exchanges, needs_token=False)
    return msgspec.json.decode(msgspec.json.encode(made))


def operations(described):
    return {
        (method.upper(), path): each
        for path, methods in described["paths"].items()
        for method, each in methods.items()
    }


def test_what_is_served_is_described_and_what_is_described_is_served(parts, described):
    rooms = [*routes(api.operations(parts), parts), description(described)]
    assert set(operations(described)) == {(route.method, route.path) for route in rooms}
    assert all(path.startswith("/v1/") for _, path in operations(described)), "probes are no part of the API"


def test_each_operation_has_a_name_of_its_own_and_all_parts_of_its_path(described):
    found = operations(described)
    names = [each["operationId"] for each in found.values()]
    assert len(set(names)) == len(names)
    for (_, path), each in found.items():
        parameters = each.get("parameters", [])
        assert {p["name"] for p in parameters if p["in"] == "path"} == set(re.findall(r"{(\w+)}", path))
        assert each["summary"]


def test_what_changes_something_and_what_accounts_hold_needs_the_token(described):
    secured = {key for key, each in operations(described).items() if each.get("security")}
    expected = {key for key in operations(described) if key[0] != "GET"} | {("GET", "/v1/balances")}
    assert secured == expected


def test_where_others_can_reach_the_gateway_reading_needs_it_too(parts):
    made = document(api.operations(parts), parts.config.exchanges, needs_token=True)
    assert operations(made)["GET", "/v1/tickers"]["security"]


def test_every_reference_leads_somewhere(described):
    text = msgspec.json.encode(described).decode()
    wanted = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert wanted <= set(described["components"]["schemas"])
    assert "ProblemBody" in wanted


def test_no_answer_has_a_secret_in_it(described):
    schemas = described["components"]["schemas"]
    for (_, path), each in operations(described).items():
        text = str(each["responses"])
        for name in re.findall(r"#/components/schemas/(\w+)", text):
            assert not {"secret", "passphrase"} & set(schemas[name].get("properties", {})), path


def test_only_configured_exchanges_can_be_asked_about(described):
    for each in operations(described).values():
        for parameter in each.get("parameters", []):
            if parameter["name"] == "exchange":
                assert parameter["schema"]["enum"] == ["binance", "bybit"]


def test_it_describes_itself(described):
    assert PATH in described["paths"]
