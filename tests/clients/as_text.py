"""Runs a program that was written for Python 2, where bytes were text: `as_text.py PROGRAM`."""

import random
import runpy
import string
import sys

import uwsgi

get = uwsgi.cache_get
sys.argv.pop(0)
string.letters = string.ascii_letters
# it draws five million letters one by one: the same, in a third of the time
random.choice = lambda letters, draw=random.random: letters[int(draw() * len(letters))]


def cache_get(*arguments):
    value = get(*arguments)
    return None if value is None else value.decode()


uwsgi.cache_get = cache_get
runpy.run_path(sys.argv[0], run_name="__main__")
