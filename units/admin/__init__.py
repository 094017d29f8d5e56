"""The lists and forms of this app, on django-unfold."""

from units.admin import access_layer, alarms, people, platform, records

__all__ = ["access_layer", "alarms", "people", "platform", "records"]
