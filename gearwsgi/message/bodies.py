"""Encodes what a caller gives as `data`, `form`, `files` or `body`: a request's body and its Content-Type. Pure."""

import os
import secrets
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidTask
from .model import Encoder, check_value, encode_json
from .targets import encode_form

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"
BYTES_TYPE = "application/octet-stream"


def encode_body(
    *, data: Any, form: Any, files: Any, body: bytes | None, content_type: str | None, encoder: Encoder | None = None
) -> tuple[bytes, str | None]:
    """The body's bytes and its Content-Type; `b""` and None where there is none.

    Raises:
        InvalidTask: more than one was given, or what was given can't be encoded.
    """
    if form is None and files is None and body is None and content_type is None:  # nearly always
        return (encode_json(data, encoder), JSON_TYPE) if data is not None else (b"", None)
    given = [name for name, value in (("data", data), ("form", form), ("body", body)) if value is not None]
    if len(given) > 1 or (files is not None and given not in ([], ["form"])):
        names = " and ".join([*given, "files"] if files is not None else given)
        raise InvalidTask(f"{names} are given together: a request has one body (files= goes with form= only)")
    if content_type is not None:
        content_type = check_value(content_type, "content_type")
    if files is not None:
        if content_type is not None:
            raise InvalidTask("content_type can't be given with files=: its boundary is chosen here")
        return _multipart(form, files)
    if data is not None:
        return encode_json(data, encoder), content_type or JSON_TYPE
    if form is not None:
        return encode_form(form, "form").encode(), content_type or FORM_TYPE
    if body is not None:
        if not isinstance(body, bytes | bytearray | memoryview):
            raise InvalidTask(f"body is {type(body).__name__}: give bytes")
        return bytes(body), content_type or BYTES_TYPE
    if content_type is not None:
        raise InvalidTask("content_type is given without a body")
    return b"", None


def _multipart(form: Any, files: Any) -> tuple[bytes, str]:
    """multipart/form-data (RFC 7578): `files` is a dict or pairs of a name and a file.

    A file is bytes, an open binary file, or a tuple (file name, bytes or open file[, content type]). Written by hand:
    these forty lines are less than urllib3 or Werkzeug would be, which nothing else here needs.
    """
    boundary = secrets.token_hex(16)
    parts: list[bytes] = []
    for name, value in _pairs(form, "form") if form is not None else ():
        for one in value if isinstance(value, list | tuple) else (value,):
            content = one if isinstance(one, bytes) else str(one).encode()
            parts.append(_part(boundary, f'name="{_quote(name)}"', None, content))
    for name, value in _pairs(files, "files"):
        filename, content, kind = _file(name, value)
        disposition = f'name="{_quote(name)}"; filename="{_quote(filename)}"'
        parts.append(_part(boundary, disposition, kind, content))
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


def _pairs(fields: Any, what: str) -> list[tuple[str, Any]]:
    items = fields.items() if isinstance(fields, Mapping) else fields
    pairs = []
    for item in items:
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InvalidTask(f"{what} holds {item!r}: give a dict or pairs")
        pairs.append((str(item[0]), item[1]))
    return pairs


def _file(name: str, value: Any) -> tuple[str, bytes, str]:
    filename, kind = "", BYTES_TYPE
    if isinstance(value, tuple):
        if len(value) not in (2, 3):
            raise InvalidTask(f"files[{name!r}]: give (file name, bytes) or (file name, bytes, content type)")
        filename, kind = str(value[0]), check_value(value[2], "content type") if len(value) == 3 else kind
        value = value[1]
    if hasattr(value, "read"):
        filename = filename or os.path.basename(str(getattr(value, "name", "")))
        value = value.read()
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InvalidTask(f"files[{name!r}] is {type(value).__name__}: give bytes or a file opened in binary mode")
    return filename or name, bytes(value), kind


def _part(boundary: str, disposition: str, kind: str | None, content: bytes) -> bytes:
    head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n"
    if kind is not None:
        head += f"Content-Type: {kind}\r\n"
    return f"{head}\r\n".encode() + content + b"\r\n"


def _quote(text: str) -> str:
    """As browsers write names and file names (the WHATWG's form encoding): these three are escaped."""
    return text.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
