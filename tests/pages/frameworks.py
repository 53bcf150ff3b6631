"""Pages of Django and Flask, as people write them."""
import time

import django
import flask
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.cache import cache_control, never_cache

settings.configure(
    SECRET_KEY="tests only",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=[
        "django.middleware.http.ConditionalGetMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
    ],
)
django.setup()


def page(request):
    return HttpResponse("django %d" % time.time_ns())


def login(request):
    request.session["name"] = request.GET["name"]
    return HttpResponse("welcome")


def user(request):
    return HttpResponse("user %s %d" % (request.session.get("name"), time.time_ns()))


def stream(request):
    return StreamingHttpResponse(iter(["one ", "two ", str(time.time_ns())]))


urlpatterns = [
    path("django/page", page),
    path("django/login", login),
    path("django/user", user),
    path("django/stream", stream),
    path("django/never", never_cache(page)),
    path("django/public", cache_control(public=True, max_age=60)(page)),
]

site = flask.Flask(__name__)
site.secret_key = "tests only"


@site.route("/flask/page")
def flask_page():
    return "flask %d" % time.time_ns()


@site.route("/flask/stream")
def flask_stream():
    return flask.Response(iter(["one ", "two ", str(time.time_ns())]), mimetype="text/plain")


@site.route("/flask/session")
def flask_session():
    flask.session["seen"] = flask.session.get("seen", 0) + 1
    return "seen %d" % time.time_ns()


@site.route("/flask/error")
def flask_error():
    raise RuntimeError("scripted")


of_django = WSGIHandler()


def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/django"):
        return of_django(environ, start_response)
    return site(environ, start_response)
