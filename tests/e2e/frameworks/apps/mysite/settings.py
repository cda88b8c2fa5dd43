"""A project as `django-admin startproject` makes it, for production: hosts are checked, HTTPS is demanded."""

import os
from pathlib import Path

from notes import SETTINGS

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "a secret of the tests that is as long as Django's own checks want it to be"
DEBUG = False
ALLOWED_HOSTS = ["shop.example.org"]
SECURE_SSL_REDIRECT = True
CSRF_COOKIE_SECURE = SESSION_COOKIE_SECURE = True

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "gearwsgi.contrib.django",
    "mysite.shop",
]
MIDDLEWARE = [
    "gearwsgi.contrib.django.JobMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
if os.environ.get("WITHOUT_JOB_MIDDLEWARE"):
    MIDDLEWARE = MIDDLEWARE[1:]
LOGIN_URL = "door"
ROOT_URLCONF = "mysite.urls"
WSGI_APPLICATION = "mysite.wsgi.application"
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"

GEARWSGI = {**SETTINGS}
