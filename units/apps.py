from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class UnitsConfig(AppConfig):
    name = "units"
    verbose_name = _("Platform")

    def ready(self) -> None:
        from units.groups import grant

        post_migrate.connect(grant, dispatch_uid="units.groups.grant")
