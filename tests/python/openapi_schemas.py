# SPDX-License-Identifier: Apache-2.0
"""OpenAI's published OpenAPI document as a judge of bodies and events. Skips where it is not there."""
import functools
import gzip
import os
import pathlib

import pytest

ROOT = pathlib.Path(os.environ.get("MILLRACE_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
DOCUMENT = ROOT / ".." / "shared" / "data" / "protocols" / "openai-openapi.yaml.gz"


@functools.lru_cache(maxsize=None)
def components():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    if not DOCUMENT.exists():
        pytest.skip("OpenAI's OpenAPI document is not in ../shared/data")
    with gzip.open(DOCUMENT) as file:
        return yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["components"]


@functools.lru_cache(maxsize=None)
def validator(name):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    return jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": components()})


@functools.lru_cache(maxsize=None)
def event_schemas():
    """From an event's type to the name of its schema: a fault then names the event's own fields."""
    found = {}
    union = components()["schemas"]["ResponseStreamEvent"]
    for choice in union.get("anyOf") or union["oneOf"]:
        name = choice["$ref"].split("/")[-1]
        for kind in components()["schemas"][name]["properties"]["type"]["enum"]:
            found[kind] = name
    return found


def check(name, value):
    faults = sorted(validator(name).iter_errors(value), key=lambda fault: -len(fault.absolute_path))
    assert not faults, f"{name}: {[(list(fault.absolute_path), fault.message[:300]) for fault in faults[:3]]}"


def check_event(event):
    assert event["type"] in event_schemas(), f"OpenAI has no event {event['type']}"
    response = event.get("response")
    if response is not None and response["usage"] is None:
        # OpenAI's own streams say null until the end, though their document does not allow it.
        event = {**event, "response": {name: value for name, value in response.items() if name != "usage"}}
    check(event_schemas()[event["type"]], event)
