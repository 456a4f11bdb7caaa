"""What belongs to one upstream stands in its provider, in its data file and in the sandbox, and nowhere else."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.support.platform import ROOT
from worker.core.catalog.provider_data import all_providers

# Where an upstream is described, spoken or imitated.
INSIDE = ("worker/providers/dreamina/", "worker/providers/ark/", "worker/core/catalog/providers/", "worker/sandbox/")
# A vendor's interface may be one that our callers speak; these files take or answer it, or name it as a source.
CALLERS_FORMATS = ("api/protocols/ark/", "api/app.py", "api/generation/media/fields.py")
# Names that clients rely on: a field of `/v1/models`, a tag of the API's document, and the form of a vendor's task ids.
PUBLIC = {
    "api/http/docs/openapi.py": '"ark"',
    "worker/core/messages/chinese.toml": "cgt-",
    "api/generation/models/routes.py": "model_req_key",
    "api/generation/models/schemas.py": "model_req_key",
}
THIRD_PARTY = ("api/console/static/vendor/",)
REGISTRY = "worker/providers/registry.py"
# Strings that only look like a region: microseconds.
NO_REGIONS = {"worker/db/connecting/engines.py": {"us"}}

# Vendors, their products and hosts. Names and titles of providers come on top, from their data.
NAMES = (
    "jimeng", "capcut", "jianying", "bytedance", "volc", "byteplus", "doubao", "seedream", "seedance", "dola",
)  # fmt: skip
# Parts of their wires.
WIRE = (
    "mweb", "aigc_draft", "submit_id", "starling", "benefit", "da_version", "appvr", "web_?id", "cc-target-idc", "msToken",
    "draft_content", "model_req_key", "execution_expires_after", "cgt-", "imagex",
    "fail_code", "item_list", r"\b1015\b", "draft_mode", "sends_resolution", "key_cn", "only_us",
)  # fmt: skip
# A number of a paragraph of the notes that a provider was written after.
SECTIONS = r"\bprotocol (section|table)s? \d|\(sections? \d"


def files() -> list[str]:
    """The files outside the providers."""
    found = []
    for folder in ("api", "worker"):
        for path in sorted((ROOT / folder).rglob("*")):
            name = str(path.relative_to(ROOT))
            if path.suffix in {".py", ".toml", ".js", ".html"} and not name.startswith((*INSIDE, *THIRD_PARTY)):
                found.append(name)
    return found


@cache
def words() -> re.Pattern[str]:
    data = all_providers().values()
    titles = {rf"\b{word}\b" for one in data for word in one.title.split() if word[0].isupper()}
    names = {*(rf"\b{one.name}\b" for one in data), *titles, *NAMES, *WIRE}
    return re.compile("|".join([*sorted(names), SECTIONS]), re.IGNORECASE)


def strings_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and value of each string that is no docstring."""
    tree = ast.parse(text)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def concepts_in(name: str, text: str) -> list[str]:
    """What of an upstream the text of a file names: `line: word`."""
    found = []
    if name in PUBLIC:
        text = text.replace(PUBLIC[name], PUBLIC[name].replace(PUBLIC[name].strip('"'), "public"))
    if name != REGISTRY and not name.startswith(CALLERS_FORMATS):
        for number, line in enumerate(text.splitlines(), start=1):
            found += [f"{number}: {match[0]}" for match in words().finditer(line)]
    if name.endswith(".py") and not name.startswith(CALLERS_FORMATS):
        # A region that only one upstream has; `auto` and `sandbox` are ours.
        regions = {region for one in all_providers().values() for region in one.regions} - {"auto", "sandbox"}
        regions -= NO_REGIONS.get(name, set())
        found += [f"{line}: region {value!r}" for line, value in strings_in(text) if value in regions]
    return found


def test_concepts_of_an_upstream_stay_in_its_provider() -> None:
    found = {name: concepts_in(name, (ROOT / name).read_text(encoding="utf-8")) for name in files()}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# as Jimeng does", ["1: Jimeng"]),
        ("x = 'dreamina'", ["1: dreamina"]),
        ("# on Ark only", ["1: Ark"]),
        ('# "benefit_type" of the job', ["1: benefit"]),
        ("# see protocol section 7.1", ["1: protocol section 7"]),
        ("if region == 'cn':\n    pass", ["1: region 'cn'"]),
        ("marks = ['auto', 'sandbox', 'larks']", []),
        ('def names() -> None:\n    """us"""', []),
    ],
)
def test_concepts_are_found(text: str, found: list[str]) -> None:
    assert concepts_in("api/jobs/example.py", text) == found
