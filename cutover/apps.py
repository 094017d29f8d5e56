from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CutoverConfig(AppConfig):
    name = "cutover"
    verbose_name = _("Cutover")

    def ready(self) -> None:
        """Nodes' words reach the running cutover, and what it uses is known to the apps below."""
        from cutover import adopting, alarms, driving, holds, uses
        from cutover.checks import second_look
        from cutover.hooks import holding
        from cutover.metrics import Cutovers
        from cutover.pacing import holders
        from domains.services import register_draft_maker, register_rules_under_way
        from units import metrics
        from units.alarms import register_sayer
        from units.in_use import register_use_check
        from units.signals import node_reported, rule_adopted

        node_reported.connect(driving.heard, dispatch_uid="cutover.driving.heard")
        rule_adopted.connect(adopting.adopt, dispatch_uid="cutover.adopting.adopt")
        register_draft_maker(uses.make_draft)
        register_rules_under_way(uses.rules_under_way)
        register_use_check(uses.sentence_against)
        metrics.register(Cutovers())
        # The hooks come last: they are called when nothing else holds the step.
        for holder in (holders.health, holders.baking, holders.pace, second_look.looked, holding.awaited):
            holds.register(holder)
        for kind in alarms.KINDS:
            register_sayer(kind, alarms.said)
