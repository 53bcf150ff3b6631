"""A backend for Flask-Caching.

    app.config["CACHE_TYPE"] = "ucache.flask.UCache"
    app.config["CACHE_UCACHE_NAME"] = "pages"

The cache is one of uWSGI's, or was opened with ``ucache.open``."""

from __future__ import annotations

from typing import Any

from flask_caching.backends.base import BaseCache

from . import cachelib


class UCache(cachelib.UCache, BaseCache):
    """See the module."""

    @classmethod
    def factory(cls, app: Any, config: Any, args: list[Any], kwargs: dict[str, Any]) -> UCache:
        """What Flask-Caching calls with the application's configuration."""
        kwargs.setdefault("default_timeout", config["CACHE_DEFAULT_TIMEOUT"])
        name = config.get("CACHE_UCACHE_NAME") or config.get("CACHE_UWSGI_NAME") or "cache"
        return cls(name, *args, **kwargs)
