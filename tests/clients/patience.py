"""More time for a suite that wants an answer in five seconds and looks one second before an item expires: busy machines
need longer. What it stores for 3 seconds is stored for 6, and is gone 6 seconds after it was seen instead of 3."""

import time

import httpx

httpx_get, time_sleep = httpx.get, time.sleep


def get(url):
    return httpx_get(url.replace("?timeout=3", "?timeout=6"), timeout=60)


def sleep(seconds):
    time_sleep(6 if seconds == 3 else seconds)


httpx.get, time.sleep = get, sleep
