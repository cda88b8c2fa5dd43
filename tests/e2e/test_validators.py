"""PEP 3333 by the letter: wsgiref's validator on both sides of the middleware, in a real worker."""

import json

from tests.support import Bench

VALID = """
import json
from wsgiref.validate import validator
from gearwsgi import GearmanMiddleware

@validator
def app(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.errors"].writelines(["validated ", environ["PATH_INFO"], "\\n"])
    environ["wsgi.errors"].flush()
    write = start_response("200 OK", [("Content-Type", "application/json")])
    return iter([json.dumps([environ["REQUEST_METHOD"], environ["SCRIPT_NAME"], body.decode()]).encode()])

application = validator(GearmanMiddleware(app, short_key=False))
"""


def test_a_worker_with_validators_inside_and_outside_of_the_middleware(site: Bench) -> None:
    (site.folder / "valid.py").write_text(VALID)
    worker = site.worker("--workers", "1", app="valid:application")
    gearman = site.app().gearman
    answers = [
        gearman.call("default.index", {"name": "x"}),
        gearman.call("GET /x", params={"q": ["1", "2"]}),
        gearman.call("PUT /empty", body=b""),
        gearman.call("/upload", files={"file": b"\x00\xff"}),
    ]
    assert [json.loads(answer.body)[:2] for answer in answers[:3]] == [["POST", ""], ["GET", ""], ["PUT", ""]]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 500]  # the last body is no UTF-8
    assert "validated /default/index" in worker.log
    assert "AssertionError" not in worker.log
