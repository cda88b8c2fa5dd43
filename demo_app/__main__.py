"""Serve the demo: `python -m demo_app`. HOST and PORT in the environment say where; port 0 is any."""

import os
import sys

import waitress

from demo_app import application


def main() -> None:
    host = os.environ.get("HOST") or "127.0.0.1"
    port = os.environ.get("PORT") or "8080"
    try:
        if not 0 <= int(port) < 65536:
            raise ValueError("a port is a number below 65536")
        server = waitress.create_server(application, host=host, port=int(port))
    except (OSError, ValueError) as error:
        sys.exit(f"demo_app can't listen on {host}:{port}: {error}. HOST and PORT choose another place.")
    if port == "0":  # a name such as localhost may have two addresses, and so two sockets; one is enough to know
        port = str(getattr(server, "effective_listen", [(host, getattr(server, "effective_port", 0))])[0][1])
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)
    server.run()


if __name__ == "__main__":
    main()
