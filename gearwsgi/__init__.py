"""Background work for any WSGI application: requests queued on Gearman, replayed through the same app."""

__version__ = "0.1.0"
