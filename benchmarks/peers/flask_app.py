"""The Flask handler: what gearwsgi replays, what HTTP push reaches, what the bare loop calls in process."""

from flask import Flask, request

from benchmarks.work import work

app = Flask(__name__)


@app.post("/job")
def job() -> str:
    data = request.get_json()
    work(data["number"], data.get("wait", 0.0))
    return "done"


@app.post("/sink/<int:number>")
def sink(number: int) -> str:
    """For bodies of any size: read it all, then stamp."""
    request.get_data()
    work(number)
    return "done"
