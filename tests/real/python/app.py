"""Answers one line over HTTP."""
import os

from bottle import route, run, __version__


@route("/")
def index():
    return f"python answers with bottle {__version__}\n"


run(host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), quiet=True)
