"""`python -m gearwsgi`."""

from .cli import main

main()
