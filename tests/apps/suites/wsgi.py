from suites.backends import keep_log
from suites.stand_in import stand_in

from gearwsgi import on_worker_start
from gearwsgi.contrib.django import get_wsgi_application

stand_in()
application = get_wsgi_application()
on_worker_start(keep_log)
