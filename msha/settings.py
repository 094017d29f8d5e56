"""Settings of the console, its Celery worker and its management commands.

Everything that differs between installations is read from the environment, once, here; a value that cannot be
meant refuses to start with a sentence that names its variable.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from django.utils.translation import gettext_lazy as _

from msha import environment, logs
from msha.navigation import UNFOLD  # noqa: F401  a setting, read by django-unfold

BASE_DIR = Path(__file__).resolve().parent.parent

# -- the environment ----------------------------------------------------------------------------------------

DEBUG = environment.boolean("MSHA_DEBUG", False)
DEMO = environment.boolean("MSHA_DEMO", False)
TESTING = "pytest" in sys.modules or "mypy" in sys.modules
_RELAXED = DEBUG or DEMO or TESTING

SECRET_KEY = environment.text(
    "MSHA_SECRET_KEY", "not-a-secret-for-debug-demo-and-tests-only" if _RELAXED else None
)
ALLOWED_HOSTS = environment.words("MSHA_ALLOWED_HOSTS", ["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS = environment.words("MSHA_TRUSTED_ORIGINS", [])
BEHIND_HTTPS = environment.boolean("MSHA_HTTPS", False)
DATABASES: dict[str, dict[str, Any]] = {
    "default": environment.database("MSHA_DATABASE_URL", f"sqlite:///{BASE_DIR / 'msha.sqlite3'}")
}
_REDIS = environment.redis("REDIS_URL", required=not _RELAXED)
SLB_INVENTORY = environment.text("MSHA_SLB_INVENTORY", "")
"""A YAML file that lists the load balancers of each unit: ``- {unit, id, name, address}``."""
DNS_SERVERS = environment.resolvers("MSHA_DNS_SERVERS")
"""Resolvers asked about managed domains, as ``ADDRESS`` or ``ADDRESS:PORT``; empty means this machine's."""
HOOK_ALLOWED_HOSTS = environment.words("MSHA_HOOK_ALLOWED_HOSTS", [])
"""Hosts that hooks may be at; ``.example.com`` means all below it. Empty means any, also this machine's."""
CONSOLE_URL = environment.text("MSHA_CONSOLE_URL", "")
"""The address edges dial, as ``https://console.example``; "" means the one the operator's browser used."""
LOG_LEVEL = environment.choice("MSHA_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
LOG_FORMAT = environment.choice("MSHA_LOG_FORMAT", "console", ("console", "json"))
TIME_ZONE = environment.text("MSHA_TIME_ZONE", "UTC")

# -- Django -------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "daphne",
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "django_htmx",
    "msha.apps.MshaConfig",
    "units.apps.UnitsConfig",
    "domains.apps.DomainsConfig",
    "cutover.apps.CutoverConfig",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "msha.security.ContentSecurityPolicy",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "msha.urls"
ASGI_APPLICATION = "msha.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "django.template.context_processors.i18n",
            ]
        },
    }
]

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # A file, because an in-memory database locks whole tables between threads; one per process, because
    # several test runs may share a machine.
    DATABASES["default"]["TEST"] = {
        "NAME": str(Path(tempfile.gettempdir()) / f"msha-test-{os.getpid()}.sqlite3")
    }

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("zh-hans", _("Simplified Chinese"))]
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
STATICFILES_DIRS = [path for path in (BASE_DIR / "static",) if path.is_dir()]
# Served from the packages and static/ as they are: an embedded installation needs no collectstatic.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = BEHIND_HTTPS
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
if BEHIND_HTTPS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

LOGGING_CONFIG = "logging.config.dictConfig"
LOGGING = logs.configured(LOG_LEVEL, LOG_FORMAT)

# -- Redis: nudges between consoles, and Celery's broker ----------------------------------------------------

if _REDIS.layer:
    CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {
                # The layer blocks 5 s in a read, which is redis-py's own time-out, too: this must outlast it.
                "hosts": [{"address": _REDIS.layer, "socket_timeout": 15}],
                "prefix": "msha",
                "capacity": 500,
                "expiry": 10,
            },
        }
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

CELERY_BROKER_URL = _REDIS.broker or "memory://"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 60, "socket_connect_timeout": 2}
CELERY_TASK_SERIALIZER = "json"
CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_SOFT_TIME_LIMIT = 10
CELERY_TASK_TIME_LIMIT = 15
# Enqueuing must not hold up the act that wanted it: the reconcile tick finds what was not enqueued.
CELERY_TASK_PUBLISH_RETRY = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {
    "tell-alarms": {"task": "units.tasks.tell_alarms", "schedule": 5.0, "options": {"expires": 5}},
    "reconcile": {"task": "cutover.tasks.reconcile", "schedule": 1.0, "options": {"expires": 1}},
}
