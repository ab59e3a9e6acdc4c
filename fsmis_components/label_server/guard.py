"""The door of the server: what no client of ours sends is refused before MONAI Label reads it.

Every request is looked at first: who sends it, which address it calls, the names in it, and the
parameters that come with it (`rules.py`).
"""

from __future__ import annotations

import ipaddress
import socket
import tempfile
from collections.abc import Sequence
from typing import IO, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fsmis_components.data.errors import DataError
from fsmis_components.data.request_error import UNPROCESSABLE
from fsmis_components.data.safe_text import parse_json
from fsmis_components.label_server.rules import (
    check_name,
    check_parameters,
    check_tag,
    check_upload,
    is_plain_name,
)

_MOST_BYTES = 4 << 30  # of a request with files
_MOST_TEXT = 1 << 20  # of one without, and of a field
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}
_OPEN = {"", "info", "infer", "batch", "train", "activelearning", "datastore", "session"}
_OPEN |= {"static", "openapi.json", "docs", "favicon.ico", "ohif", "token", "users", "auth"}
# whole slides are not ours, and of the archive of all scans a copy would stay for each request
_CLOSED = {("infer", "wsi"), ("infer", "wsi_v2"), ("datastore", "dataset")}
_HERE_ONLY = {"logs", "model", "reload"}  # what is in them is the owner's
_PROXIED = {"forwarded", "x-forwarded-for", "x-real-ip", "via"}  # the client is a proxy of others
_ANY_VALUE = {"check_sum"}  # of a query; letters and digits with a colon


class RequestGuard:
    """ASGI middleware in front of all of MONAI Label.

    `app` answers requests that are let in; `origins` are pages of other servers that may call this
    one, as "https://viewer.example:8443".
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str] = ()) -> None:
        self.app = app
        self.origins = set(origins)
        names = {"localhost", socket.gethostname(), socket.getfqdn()}
        self.hosts = {name.lower() for name in names | {_host(origin) for origin in origins}}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it with one sentence."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            self._check_sender(scope, headers)
            door = _check_address(scope, headers)
            with tempfile.SpooledTemporaryFile(max_size=_MOST_TEXT) as body:
                await _read(receive, headers, body)
                await _check_body(scope, headers, body, door)
                await self.app(scope, _replay(body, receive), send)
        except DataError as error:
            await JSONResponse({"detail": str(error)}, UNPROCESSABLE)(scope, receive, send)
        except HTTPException as error:
            await JSONResponse({"detail": error.detail}, error.status_code)(scope, receive, send)

    def _check_sender(self, scope: Scope, headers: Headers) -> None:
        """Refuse pages of other servers, which a browser lets call any server that it can reach."""
        host = _host(f"//{headers.get('host', '')}")
        if not (host in self.hosts or _is_address(host)):
            raise HTTPException(
                403, "This server is not called so; add its name to --conf origins."
            )
        origin = headers.get("origin")
        if origin is None or origin in self.origins:
            return
        if urlsplit(origin).netloc != headers.get("host") and not _is_loopback(_host(origin)):
            raise HTTPException(
                403, "Pages of other servers may not call this one; see --conf origins."
            )


async def _read(receive: Receive, headers: Headers, body: IO[bytes]) -> None:
    multipart = headers.get("content-type", "").startswith("multipart/form-data")
    limit, more = _MOST_BYTES if multipart else _MOST_TEXT, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise HTTPException(400, "The request ended early.")
        body.write(message.get("body", b""))
        if body.tell() > limit:
            raise HTTPException(413, f"The request is larger than {limit:,} bytes.")
        more = message.get("more_body", False)


def _check_address(scope: Scope, headers: Headers) -> str:
    """Check path and query; returns the first part of the path, which says what is asked for."""
    if scope["method"] not in _METHODS:
        raise HTTPException(405, "This server does not know this method.")
    door, *rest = [unquote(part) for part in scope["path"].strip("/").split("/")]
    if door in _HERE_ONLY:
        client = (scope.get("client") or ("",))[0]
        here = _is_loopback(client) and not _PROXIED & set(headers.keys())
        if not here or scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(403, f"/{door} is read on the server's own machine only.")
    elif door not in _OPEN or (door, *rest[:1]) in _CLOSED:
        raise HTTPException(404, "There is no such address on this server.")
    names = [] if door == "static" else [part for part in rest if part]
    for name in names:
        check_name("address", name)
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    for name, value in query:
        if name in _ANY_VALUE:
            value = value.replace(":", "")
        if name == "uncompress" and value.lower() not in ("", "0", "false"):
            raise HTTPException(422, "uncompress: archives are not unpacked; send the files.")
        if name == "tag" and value:
            check_tag(value)
        if value:
            check_name(name if is_plain_name(name) else "query", value)
    return door


async def _check_body(scope: Scope, headers: Headers, body: IO[bytes], door: str) -> None:
    if not body.seek(0, 2):
        return
    form = ("multipart/form-data", "application/x-www-form-urlencoded")
    if not headers.get("content-type", "").startswith(form):
        body.seek(0)
        check_parameters(door, _json(body.read()))
        return
    try:
        # as the application itself reads it
        parts = await Request(scope, _replay(body)).form(max_files=5000)
    except (MultiPartException, HTTPException, KeyError, ValueError) as error:
        raise HTTPException(400, "The form of the request cannot be read.") from error
    for name, part in parts.multi_items():
        if isinstance(part, UploadFile):
            check_upload(name, part.filename or "")
        else:
            _check_field(door, name, part)
    await parts.close()


def _check_field(door: str, name: str, value: str) -> None:
    if name in ("params", "info"):
        check_parameters(door, _json(value) if value else {})
    elif value and door != "token":
        check_name(name if is_plain_name(name) else "form", value)


def _json(text: str | bytes) -> Any:
    try:
        return parse_json(text)
    except (ValueError, UnicodeDecodeError) as error:
        raise HTTPException(422, "The parameters are no JSON, or nested too deeply.") from error


def _replay(body: IO[bytes], receive: Receive | None = None) -> Receive:
    """Give the body once more, then what the client says next: that it has gone."""
    body.seek(0)
    ended = False

    async def again() -> Message:
        nonlocal ended
        if ended:
            return await receive() if receive else {"type": "http.disconnect"}
        chunk = body.read(_MOST_TEXT)
        ended = len(chunk) < _MOST_TEXT
        return {"type": "http.request", "body": chunk, "more_body": not ended}

    return again


def _host(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
