from django.urls import path

from .shop import views

urlpatterns = [
    path("hello/<name>", views.hello, name="hello"),
    path("login", views.login),
    path("queue/<kind>", views.queue),
    path("default/index", views.index),
    path("receive/form", views.receive_form),
    path("receive/raw", views.receive_raw),
    path("receive/query", views.receive_query),
    path("receive/upload", views.receive_upload),
    path("defer", views.defer),
    path("door", views.login, name="door"),
    path("sign", views.sign),
    path("sign/members", views.sign_as_member),
    path("token", views.token),
    path("later", views.later),
    path("tasks/clean", views.clean),
    path("call", views.call),
    path("flaky", views.flaky),
    path("long", views.long),
    path("fail", views.fail),
    path("async", views.queue_async),
    path("order", views.order),
    path("ordered", views.ordered),
]
