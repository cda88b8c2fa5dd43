from django.urls import path, re_path

from tasksite import views

urlpatterns = [
    path("enqueue", views.enqueue),
    path("order", views.order),
    path("result", views.result),
    path("crash", views.crash),
    re_path(r"^.*$", views.catch_all, name="all"),
]
