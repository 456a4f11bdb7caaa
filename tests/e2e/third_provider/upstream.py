"""The upstream of the toy provider: takes orders, finishes each at the second look, and serves its files."""

from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.media_files import encode_image, make_video

KEY = "toy-key-of-the-tests"


@dataclass
class Upstream:
    """Orders by our key. `url` is where it runs."""

    url: str = ""
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)

    def app(self) -> Starlette:
        """Return its HTTP interface."""
        return Starlette(
            routes=[
                Route("/me", self._me),
                Route("/orders", self._order, methods=["POST"]),
                Route("/orders", self._list, methods=["GET"]),
                Route("/files/{name}", self._file),
            ]
        )

    async def _me(self, request: Request) -> Response:
        known = request.headers.get("authorization") == f"Bearer {KEY}"
        return JSONResponse({"name": "tests"} if known else {}, status_code=200 if known else 401)

    async def _order(self, request: Request) -> Response:
        body = await request.json()
        assert body["key"] not in self.orders, "an order was sent twice"
        self.orders[body["key"]] = body
        return JSONResponse({"id": f"toy-{body['key']}"})

    async def _list(self, request: Request) -> Response:
        found = [self.orders[key] for key in request.query_params.getlist("key") if key in self.orders]
        return JSONResponse({"orders": [self._row(order) for order in found]})

    def _row(self, order: dict[str, Any]) -> dict[str, Any]:
        key = order["key"]
        self.looks[key] = self.looks.get(key, 0) + 1
        row = {"key": key, "id": f"toy-{key}", "state": "running", "files": [], "error": None}
        if self.looks[key] < 2:
            return row
        if "forbidden" in order["prompt"]:
            return row | {"state": "failed", "error": "refused"}
        if order["kind"] == "video":
            file = {"width": 64, "height": 64, "format": "mp4", "seconds": 2.0, "url": f"{self.url}/files/{key}.mp4"}
            return row | {"state": "done", "files": [file]}
        size = {"width": order["width"], "height": order["height"], "format": "png"}
        files = [{**size, "url": f"{self.url}/files/{key}-{n}.png"} for n in range(order["count"])]
        return row | {"state": "done", "files": files}

    async def _file(self, request: Request) -> Response:
        if request.path_params["name"].endswith(".mp4"):
            return Response(make_video("red", "blue"), media_type="video/mp4")
        return Response(encode_image("PNG", (512, 512)), media_type="image/png")
