"""A mule that runs what it is sent and leaves the answer in the cache."""
import uwsgi

while True:
    source = uwsgi.mule_get_msg().decode()
    try:
        answer = repr(eval(source))
    except Exception as error:
        answer = repr(error)
    uwsgi.cache_update("answer", answer)
