"""An application that writes down what reaches it: all of the environ and the body, a file a request.

`X-Number` names the file; `X-Answer` (JSON) says what to answer; `X-Defer: replay` queues the request itself, and
`/queue` queues another.
"""

import hashlib
import json
import os
from pathlib import Path

from gearwsgi import GearmanMiddleware


def mirror(environ, start_response):
    number = environ.pop("HTTP_X_NUMBER", "")
    if environ.pop("HTTP_X_DEFER", "") == "replay":
        environ["HTTP_X_NUMBER"] = number  # which the replay shall bring too
        task = environ["gearman"].replay()
        start_response("202 Accepted", [("Content-Type", "text/plain")])
        return [str(task).encode()]
    if environ.get("PATH_INFO") == "/queue":
        task = environ["gearman"].task("/landed?x=1", {"n": 1}, headers={"X-Number": number})
        start_response("202 Accepted", [("Content-Type", "text/plain")])
        return [str(task).encode()]
    answer = json.loads(environ.get("HTTP_X_ANSWER", "{}"))
    environ.setdefault("HTTP_X_ANSWER", "")
    body = environ["wsgi.input"].read()
    seen = {key: describe(value) for key, value in environ.items() if key != "HTTP_X_ANSWER"}
    seen["body"] = f"{len(body)} bytes, {hashlib.sha256(body).hexdigest()}"
    if number:
        folder = Path(os.environ["SEEN"])
        (folder / f"{number}.part").write_text(json.dumps(seen))
        os.rename(folder / f"{number}.part", folder / f"{number}.json")
    return respond(answer, start_response)


def describe(value):
    if isinstance(value, str | bool | int | tuple):
        return value
    return f"the class {value.__module__}" if isinstance(value, type) else f"a {type(value).__name__}"


def respond(answer, start_response):
    content = answer.get("body", "the body").encode()
    headers = [tuple(pair) for pair in answer.get("headers", [["Content-Type", "text/plain"]])]
    how = answer.get("how", "list")
    if how == "late":
        return late(answer, headers, content, start_response)
    write = start_response(answer.get("status", "200 OK"), headers)
    if how == "write":
        write(content)
        return [b"", b" and the rest"]
    if how == "tuple":
        return (content[:3], content[3:])
    return [content] if content else []


def late(answer, headers, content, start_response):
    start_response(answer.get("status", "200 OK"), headers)
    for place in range(len(content)):
        yield content[place : place + 1]


application = GearmanMiddleware(mirror, **json.loads(os.environ.get("SETTINGS", "{}")))
