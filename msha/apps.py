from django.apps import AppConfig


class MshaConfig(AppConfig):
    name = "msha"
    label = "msha"

    def ready(self) -> None:
        """The Celery app is bound, so that ``.delay()`` in any process finds the right broker."""
        from msha import celery  # noqa: F401  importing it is the effect
