import json

from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import get_language
from notes import SAMPLES, go_on, record

from gearwsgi.contrib.django import gearman
from gearwsgi.errors import InvalidTask

from .models import Order


def note(request, kind, got):
    record(
        request.environ["gearwsgi.job"],
        kind=kind,
        got=got,
        url=request.build_absolute_uri(reverse("hello", args=["x"])),
        client=request.META["REMOTE_ADDR"],
        language=get_language(),
        user=request.session.get("user"),
    )
    return HttpResponse("noted")


def hello(request, name):
    return HttpResponse(f"Hello {name}")


def login(request):
    request.session["user"] = "alice"
    return HttpResponse("welcome")


def token(request):
    return HttpResponse(get_token(request))


def queue(request, kind):
    task = request.environ["gearman"].task("testTask" if kind == "json" else f"/receive/{kind}", **SAMPLES[kind])
    return HttpResponse(str(task))


def index(request):
    return note(request, "json", json.loads(request.body))


def receive_form(request):
    return note(request, "form", {"name": request.POST["name"], "tags": request.POST.getlist("tags")})


def receive_raw(request):
    return note(request, "raw", [request.body.hex(), request.content_type])


def receive_query(request):
    return note(request, "query", {"name": request.GET["name"], "tags": request.GET.getlist("tags")})


def receive_upload(request):
    photo = request.FILES["photo"]
    return note(request, "upload", [request.POST["title"], photo.name, photo.content_type, photo.read().hex()])


def defer(request):
    if "gearwsgi.job" not in request.environ:
        request.environ["gearman"].replay()
        return HttpResponse("later", status=202)
    return note(request, "defer", [request.POST["name"], request.GET["page"]])


def save(request):
    note(request, "sign", request.POST["name"])
    return redirect("hello", name="x")


def sign(request, save=save):
    """A form that answers by redirect, as forms do, when its work is done."""
    if "gearwsgi.job" not in request.environ:
        request.environ["gearman"].replay()
        return HttpResponse("later", status=202)
    return save(request)


def sign_as_member(request):
    return sign(request, login_required(save))


def later(request):
    gearman().task("/tasks/clean", {"n": 1}, after_response=True)
    return HttpResponse("later")


def clean(request):
    return note(request, "clean", json.loads(request.body))


async def queue_async(request):
    task = gearman().task("/tasks/clean", {"n": "async"})
    return HttpResponse(f"{task} {gearman() is request.environ['gearman']}")


def call(request):
    answer = request.environ["gearman"].call("GET /hello/Zo%C3%AB")
    return HttpResponse(answer.body, status=answer.status_code)


def flaky(request):
    if request.environ["gearwsgi.job"].attempt == 1:
        raise RuntimeError("the first attempt fails")
    return note(request, "flaky", None)


def long(request):
    return note(request, "long", go_on(request.environ["gearwsgi.job"]))


def fail(request):
    return HttpResponse(str(request.environ["gearman"].task("/flaky")))


def order(request):
    """Make an order and queue what follows, in a transaction that may come to nothing."""
    gearman = request.environ["gearman"]
    how = request.GET["how"]
    if how == "no transaction":
        return HttpResponse(str(gearman.task("/ordered", {"name": how}, after_commit=True)))
    handles = []
    try:
        with transaction.atomic():
            Order.objects.create(name=how)
            task = gearman.task("/ordered", {"name": how}, after_commit=True)
            handles.append(str(task))
            if how == "nested":
                with transaction.atomic():
                    gearman.task("/ordered", {"name": "inner"}, after_commit=True)
            if how == "inner rolled back":
                try:
                    with transaction.atomic():
                        gearman.task("/ordered", {"name": "never"}, after_commit=True)
                        raise LookupError
                except LookupError:
                    pass
            if how == "rolled back":
                raise LookupError
            if how == "bad":
                gearman.task("no such service", after_commit=True)
            if how == "twice":
                gearman.task("/ordered", after_commit=True, after_response=True)
            if how == "replay":
                gearman.replay(after_commit=True)
    except LookupError:
        pass
    except InvalidTask as error:
        return HttpResponse(f"{type(error).__name__}: {error}", status=400)
    handles.append(str(task))
    return HttpResponse(json.dumps(handles))


def ordered(request):
    data = json.loads(request.body)
    return note(request, "ordered", [data["name"], Order.objects.filter(name=data["name"]).exists()])
