"""A reverse proxy as a WSGI application, for the public test suite of HTTP caches."""
import http.client
import os

HOP = {"keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}


def application(environ, start_response):
    origin = http.client.HTTPConnection("127.0.0.1", int(os.environ["ORIGIN"]), timeout=20)
    body = environ["wsgi.input"].read() or None
    origin.putrequest(environ["REQUEST_METHOD"], environ["REQUEST_URI"], skip_host=True, skip_accept_encoding=True)
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            origin.putheader(name[5:].replace("_", "-").title(), value.encode("latin-1"))
    if environ.get("CONTENT_TYPE"):
        origin.putheader("Content-Type", environ["CONTENT_TYPE"])
    if body:
        origin.putheader("Content-Length", str(len(body)))
    try:
        origin.endheaders(body)
        answer = origin.getresponse()
    except OSError:
        start_response("502 Bad Gateway", [])
        return [b"the origin server gave no answer"]
    # What the origin server says of its connection is left out; which headers it names there is not.
    own = {"close", "keep-alive"}
    headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in HOP]
    headers = [(k, v) for k, v in headers if k.lower() != "connection" or v.lower() not in own]
    start_response("%d %s" % (answer.status, answer.reason or "-"), headers)
    return [answer.read()]
