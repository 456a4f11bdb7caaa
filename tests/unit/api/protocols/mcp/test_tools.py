"""The table of tools: names, schemas, hints; names of resources; arguments; event streams."""

import asyncio
import subprocess
import sys

import pytest
from jsonschema import Draft202012Validator

from api.protocols.mcp.gateways.protocol import RefusedError, read_events
from api.protocols.mcp.tools.arguments import read_arguments
from api.protocols.mcp.tools.inputs import EditPicture, MakePicture
from api.protocols.mcp.tools.results import own_path
from api.protocols.mcp.tools.table import TOOLS
from api.protocols.mcp.tools.uris import FileName, JobName, parse_uri
from tests.support.platform import ROOT, clean_env
from worker.core.catalog.consent_limits import read_consent_limits
from worker.core.errors import DreameryError

READING = {"list_models", "estimate", "wait_for_job", "list_jobs", "balance"}
COSTING = {"make_picture", "edit_picture", "make_video"}


def test_tools_are_those_of_the_documents():
    assert set(TOOLS) == READING | COSTING | {"cancel_job"}


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_tool_has_plain_schemas_and_descriptions(name):
    tool = TOOLS[name].definition()
    assert tool.description
    assert tool.title
    for schema in (tool.input_schema, tool.output_schema):
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
    assert tool.input_schema["additionalProperties"] is False
    for argument, schema in tool.input_schema["properties"].items():
        assert schema.get("description"), argument
        assert schema.get("type"), argument
        # Some clients and models know neither.
        assert not {"$ref", "anyOf"} & schema.keys(), argument


def test_hints_say_what_reads_costs_and_destroys():
    hints = {name: row.definition().annotations for name, row in TOOLS.items()}
    assert {name for name, hint in hints.items() if hint.read_only_hint} == READING
    assert {name for name, hint in hints.items() if not hint.idempotent_hint} == COSTING
    assert {name for name, hint in hints.items() if hint.destructive_hint} == {"cancel_job"}


@pytest.mark.parametrize(
    ("arguments", "code", "param"),
    [
        ({}, "missing_required_parameter", "prompt"),
        ({"prompt": "a boat", "colour": "red"}, "unsupported_parameter", "colour"),
        ({"prompt": "a boat", "wait_seconds": 601}, "invalid_value", "wait_seconds"),
        ({"prompt": "a boat", "max_cost": float("inf")}, "invalid_value", "max_cost"),
        ({"prompt": ["a boat"]}, "invalid_value", "prompt"),
    ],
)
def test_wrong_arguments_are_named(arguments, code, param):
    with pytest.raises(DreameryError) as wrong:
        read_arguments(MakePicture, arguments)
    assert (wrong.value.code, wrong.value.param) == (code, param)


def test_arguments_of_an_estimated_tool_are_named_in_full():
    with pytest.raises(DreameryError) as wrong:
        read_arguments(EditPicture, {"prompt": "a boat", "images": []}, prefix="arguments.")
    assert wrong.value.param == "arguments.images"


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("dreamery://jobs/job_12ab", JobName("job_12ab")),
        ("dreamery://jobs/job_12ab/files/2", FileName("job_12ab", 2)),
        ("dreamery://jobs/../admin", None),
        ("dreamery://jobs/job_1?x=1", None),
        ("dreamery://jobs/job_1/files/-1", None),
        ("http://jobs/job_1", None),
    ],
)
def test_names_of_resources(uri, name):
    assert parse_uri(uri) == name


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("100 credits, 0.5 USD", {"credits": 100, "usd": 0.5}),
        ("20", {"": 20}),
        ("0", {"": 0}),
        ("none", {}),
        ("", {}),
    ],
)
def test_limits_of_consent(text, limits):
    assert read_consent_limits(text) == limits


@pytest.mark.parametrize("text", ["lots", "-1", "1 EUR", "1e9", "5 credits; 1 USD", "1 USD," * 100, "1" * 30])
def test_other_texts_are_no_limits(text):
    with pytest.raises(ValueError, match="must be amounts"):
        read_consent_limits(text)


def test_links_of_files_become_paths_of_the_api():
    assert (
        own_path("https://example.com/dreamery/v1/files/file_1/content?expires=5")
        == "/v1/files/file_1/content?expires=5"
    )


def test_events_are_read_across_pieces():
    async def pieces():
        for piece in (
            b"retry: 1\n: ka\nevent: sna",
            b"pshot\nda",
            b'ta: {"object": "job", "error": {"code": "x"}}\n\n',
        ):
            yield piece

    async def read():
        return [event async for event in read_events(pieces())]

    assert asyncio.run(read()) == [None, {"object": "job", "error": {"code": "x"}}]


@pytest.mark.parametrize(
    "stream",
    [b'data: {"type": "error", "error": {"code": "invalid_api_key", "message": "no"}}\n', b"data: " + b"x" * 2_100_000],
    ids=["error", "endless line"],
)
def test_broken_streams_are_refused(stream):
    async def pieces():
        yield stream

    async def read():
        return [event async for event in read_events(pieces())]

    with pytest.raises(RefusedError):
        asyncio.run(read())


def test_the_library_is_imported_by_the_first_request_only():
    """An API process that nobody calls this way keeps the 20 MB that the library takes."""
    program = "import sys, api.app; print('mcp' in sys.modules, 'api.protocols.mcp.routes' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=clean_env(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]
