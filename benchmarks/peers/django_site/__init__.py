"""A Django project with two backends for its tasks, gearwsgi's and django-tasks-db; results are in PostgreSQL."""
