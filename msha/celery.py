import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "msha.settings")

app = Celery("msha")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
