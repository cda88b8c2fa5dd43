from django.core.management.base import BaseCommand

from gearwsgi.contrib.django import gearman


class Command(BaseCommand):
    def handle(self, *args, **options):
        self.stdout.write(str(gearman().task("tasks.clean", {"n": "from a command"})))
