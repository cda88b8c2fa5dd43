"""The same Flask application behind gearwsgi: `gearwsgi worker benchmarks.peers.queued_app:application`."""

import os

from benchmarks.peers.flask_app import app
from gearwsgi import GearmanMiddleware

application = GearmanMiddleware(app, servers=os.environ["BENCH_GEARMAN"], state_dir=os.environ["BENCH_STATE_DIR"])
