"""What is steered (namespaces, units, unit types), by whom (clusters, edge nodes, SLBs), what was published.

*Desired* and *observed* never share a field: a `UnitType` is the saved rule, the one in effect is in the
newest `Snapshot`; what an `EdgeNode` reports is written by the control stream alone.
"""

import re
import uuid
from datetime import timedelta
from typing import Any, ClassVar, NoReturn

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from units import webhooks

LIVE_WITHIN = timedelta(seconds=5)
IN_SYNC_WITHIN = timedelta(seconds=3)
UNIT_COLOURS = 8

_name = RegexValidator(
    re.compile(r"\A[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62})\Z"),
    _("Use letters, digits, dot, dash and underscore, beginning with a letter or digit."),
)
_dns_label = RegexValidator(
    re.compile(r"\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z"),
    _("Use lower-case letters, digits and inner dashes: the code becomes a part of host names."),
)


class AppendOnly(TypeError):
    """A row that records history was about to be changed or deleted."""

    def __init__(self, model: str) -> None:
        super().__init__(f"{model} rows are history: they are added and never changed or deleted.")


class AppendOnlyQuerySet(models.QuerySet[Any]):
    def update(self, **kwargs: Any) -> NoReturn:
        raise AppendOnly(self.model.__name__)

    def delete(self) -> NoReturn:
        raise AppendOnly(self.model.__name__)

    def bulk_update(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnly(self.model.__name__)


class AppendOnlyModel(models.Model):
    """Rows are added; ``save()`` of an existing one, ``update()`` and ``delete()`` raise `AppendOnly`."""

    objects = models.Manager.from_queryset(AppendOnlyQuerySet)()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnly(type(self).__name__)
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnly(type(self).__name__)


class Dated(models.Model):
    created = models.DateTimeField(_("created"), auto_now_add=True)
    updated = models.DateTimeField(_("updated"), auto_now=True)

    class Meta:
        abstract = True


class Namespace(Dated):
    """One multi-active environment. Its row is the lock under which everything is published and enrolled."""

    uuid = models.UUIDField(_("UUID"), default=uuid.uuid4, unique=True, editable=False)
    name = models.SlugField(
        _("name"), max_length=63, unique=True, help_text=_("Short name, as in mshactl -n NAME.")
    )
    title = models.CharField(_("title"), max_length=200, blank=True, help_text=_("What people call it."))
    key_min = models.PositiveIntegerField(_("smallest routerId"), default=0)
    key_max = models.PositiveIntegerField(_("largest routerId"), default=9999)
    default_unit_type = models.CharField(
        _("default unit type"),
        max_length=63,
        blank=True,
        help_text=_("Used by a handshake that names no unitType."),
    )
    version = models.PositiveBigIntegerField(
        _("version"),
        default=0,
        editable=False,
        help_text=_("The newest published version; 0 before the first."),
    )
    epoch = models.PositiveBigIntegerField(
        _("epoch"), default=0, editable=False, help_text=_("Rises by one with every step of a cutover.")
    )
    publishing_stopped = models.TextField(
        _("publishing stopped"),
        blank=True,
        editable=False,
        help_text=_("Why nothing is published; empty if it is."),
    )

    class Meta:
        verbose_name = _("namespace")
        verbose_name_plural = _("namespaces")
        ordering = ("name",)
        permissions = [("send_message", _("Can send messages to sessions"))]
        constraints = [
            models.CheckConstraint(
                condition=Q(key_min__lte=F("key_max")),
                name="namespace_key_space",
                violation_error_message=_("The smallest routerId must not be above the largest."),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Unit(Dated):
    namespace = models.ForeignKey(
        Namespace, models.PROTECT, related_name="units", verbose_name=_("namespace")
    )
    code = models.CharField(
        _("code"), max_length=63, validators=[_dns_label], help_text=_("Used in sub-domains: center, unbj.")
    )
    name = models.CharField(_("name"), max_length=200, blank=True)
    is_center = models.BooleanField(
        _("center"), default=False, help_text=_("One unit of a namespace is its center.")
    )
    position = models.PositiveSmallIntegerField(
        _("position"), default=0, help_text=_("Order and colour on pages.")
    )

    class Meta:
        verbose_name = _("unit")
        verbose_name_plural = _("units")
        ordering = ("namespace", "position", "code")
        constraints = [
            models.UniqueConstraint(
                fields=("namespace", "code"),
                name="unit_code",
                violation_error_message=_("This namespace already has a unit with this code."),
            ),
            models.UniqueConstraint(
                fields=("namespace",),
                condition=Q(is_center=True),
                name="unit_one_center",
                violation_error_message=_("This namespace already has a center."),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.code})" if self.name else self.code

    @property
    def colour(self) -> int:
        """The index of the unit's colour on pages."""
        return self.position % UNIT_COLOURS


class UnitType(Dated):
    """A routing dimension and its saved rule."""

    class Untagged(models.TextChoices):
        LOCAL = "local", _("serve where it arrives")
        CENTER = "center", _("send to the center")
        REJECT = "reject", _("reject")

    namespace = models.ForeignKey(
        Namespace, models.PROTECT, related_name="unit_types", verbose_name=_("namespace")
    )
    name = models.CharField(
        _("name"), max_length=63, validators=[_name], help_text=_("The value of the unitType header.")
    )
    sources = models.JSONField(
        _("routerId sources"),
        default=list,
        help_text=_("Where the routerId is looked for, in this order; the first that has a value wins."),
    )
    transform = models.JSONField(
        _("transform"),
        default=list,
        blank=True,
        help_text=_("What is done to the value found, in this order."),
    )
    untagged = models.CharField(
        _("untagged traffic"),
        max_length=10,
        choices=Untagged,
        default=Untagged.LOCAL,
        help_text=_("What happens to a handshake without a routerId."),
    )
    ranges = models.JSONField(
        _("range rule"),
        default=dict,
        help_text=_("Per unit, inclusive ranges that cover the key space exactly once."),
    )
    exact = models.JSONField(
        _("exact routing"),
        default=dict,
        blank=True,
        help_text=_("Per unit, single ids that override the ranges."),
    )

    class Meta:
        verbose_name = _("unit type")
        verbose_name_plural = _("unit types")
        ordering = ("namespace", "name")
        constraints = [
            models.UniqueConstraint(
                fields=("namespace", "name"),
                name="unit_type_name",
                violation_error_message=_("This namespace already has a unit type with this name."),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class OfOneUnit(Dated):
    """Belongs to one unit, and so to its namespace; the name is unique there."""

    unit = models.ForeignKey(Unit, models.PROTECT, related_name="%(class)ss", verbose_name=_("unit"))
    namespace = models.ForeignKey(
        Namespace, models.PROTECT, related_name="%(class)ss", verbose_name=_("namespace"), editable=False
    )
    name = models.CharField(_("name"), max_length=63, validators=[_name])

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.namespace_id = self.unit.namespace_id
        super().save(*args, **kwargs)

    def clean(self) -> None:
        if self.unit_id is not None:
            self.namespace_id = self.unit.namespace_id
            rows = type(self)._default_manager.filter(namespace_id=self.namespace_id, name=self.name)
            if rows.exclude(pk=self.pk).exists():
                raise ValidationError({"name": _("This namespace already has one with this name.")})


class Cluster(OfOneUnit):
    """The edge nodes of one unit for one protocol (an MSFE cluster)."""

    class Protocol(models.TextChoices):
        WEBSOCKET = "websocket", _("WebSocket")

    protocol = models.CharField(_("protocol"), max_length=20, choices=Protocol, default=Protocol.WEBSOCKET)
    joined_at = models.DateTimeField(
        _("joined the access layer"),
        null=True,
        blank=True,
        editable=False,
        help_text=_("Only a cluster that has joined may be chosen by a domain."),
    )

    class Meta:
        verbose_name = _("MSFE cluster")
        verbose_name_plural = _("MSFE clusters")
        ordering = ("namespace", "name")
        constraints = [models.UniqueConstraint(fields=("namespace", "name"), name="cluster_name")]

    @property
    def joined(self) -> bool:
        return self.joined_at is not None


class EdgeNode(OfOneUnit):
    """One edge agent with its workers and one state directory. It never changes its unit."""

    class State(models.TextChoices):
        REGISTERED = "registered", _("registered, never started")
        ENROLLED = "enrolled", _("enrolled")
        LEFT = "left", _("left")
        DEAD = "dead", _("declared dead")

    cluster = models.ForeignKey(
        Cluster, models.PROTECT, related_name="nodes", null=True, blank=True, verbose_name=_("MSFE cluster")
    )
    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    state = models.CharField(
        _("state"), max_length=12, choices=State, default=State.REGISTERED, editable=False
    )
    enrolment = models.PositiveIntegerField(
        _("enrolment"), default=0, editable=False, help_text=_("Rises by one each time the node is enrolled.")
    )
    instance = models.CharField(
        _("instance"),
        max_length=36,
        blank=True,
        editable=False,
        help_text=_("The UUID in its state directory."),
    )
    declared_dead_by = models.CharField(_("declared dead by"), max_length=150, blank=True, editable=False)
    declared_dead_reason = models.TextField(_("reason"), blank=True, editable=False)
    declared_dead_at = models.DateTimeField(_("declared dead at"), null=True, blank=True, editable=False)

    # Observed: what the node said on its control stream.
    connected = models.BooleanField(_("connected"), default=False, editable=False)
    connection_id = models.CharField(max_length=36, blank=True, editable=False)
    pid = models.PositiveBigIntegerField(_("process id"), default=0, editable=False)
    address = models.CharField(_("listens on"), max_length=200, blank=True, editable=False)
    software = models.CharField(_("software"), max_length=60, blank=True, editable=False)
    workers = models.PositiveSmallIntegerField(_("workers"), default=0, editable=False)
    # What it says is on its disk; the database may not know it (PROTOCOL P4). No gate looks at these.
    reported_version = models.PositiveBigIntegerField(_("reported version"), default=0, editable=False)
    reported_digest = models.CharField(_("reported digest"), max_length=64, blank=True, editable=False)
    reported_epoch = models.PositiveBigIntegerField(_("reported epoch"), default=0, editable=False)
    # What it acked under its present enrolment: known versions with the right digest.
    applied_version = models.PositiveBigIntegerField(_("applied version"), default=0, editable=False)
    applied_digest = models.CharField(_("applied digest"), max_length=64, blank=True, editable=False)
    applied_epoch = models.PositiveBigIntegerField(_("applied epoch"), default=0, editable=False)
    drained_epoch = models.PositiveBigIntegerField(_("drained epoch"), default=0, editable=False)
    workers_exited_epoch = models.PositiveBigIntegerField(
        _("workers exited in epoch"), default=0, editable=False
    )
    listening = models.BooleanField(_("listening"), default=False, editable=False)
    parked = models.BooleanField(_("parked"), default=False, editable=False)
    draining = models.BooleanField(_("draining"), default=False, editable=False)
    sessions = models.PositiveIntegerField(_("sessions"), default=0, editable=False)
    half_open = models.PositiveIntegerField(_("half-open handshakes"), default=0, editable=False)
    nack_version = models.PositiveBigIntegerField(_("refused version"), default=0, editable=False)
    nack_reason = models.TextField(_("reason of the refusal"), blank=True, editable=False)
    nack_at = models.DateTimeField(_("refused at"), null=True, blank=True, editable=False)
    status_at = models.DateTimeField(_("last status"), null=True, blank=True, editable=False)
    confirmed_at = models.DateTimeField(
        _("last confirmed"),
        null=True,
        blank=True,
        editable=False,
        help_text=_("When the console last told it that what it applied is current."),
    )
    clock_skew_ms = models.IntegerField(_("clock skew in ms"), default=0, editable=False)
    counters = models.JSONField(_("counters"), default=dict, blank=True, editable=False)
    phase_progress = models.JSONField(
        _("progress of the running step"), default=dict, blank=True, editable=False
    )

    class Meta:
        verbose_name = _("edge node")
        verbose_name_plural = _("edge nodes")
        ordering = ("namespace", "name")
        permissions = [("declare_dead", _("Can declare an edge node dead"))]
        constraints = [models.UniqueConstraint(fields=("namespace", "name"), name="edge_node_name")]

    @property
    def enrolled(self) -> bool:
        return self.state == self.State.ENROLLED

    @property
    def live(self) -> bool:
        """Enrolled, stream up, and its status younger than 5 s. Liveness never satisfies a safety gate."""
        recent = self.status_at is not None and timezone.now() - self.status_at < LIVE_WITHIN
        return self.enrolled and self.connected and recent

    @property
    def in_sync(self) -> bool:
        """The console confirmed within 3 s that what the node applied is current (for pages only)."""
        recent = self.confirmed_at is not None and timezone.now() - self.confirmed_at < IN_SYNC_WITHIN
        return self.live and recent and self.nack_version <= self.applied_version


class Slb(OfOneUnit):
    """A load balancer in front of a cluster, picked from the inventory."""

    address = models.CharField(_("address"), max_length=200)
    external_id = models.CharField(_("id"), max_length=120, help_text=_("Its id in the inventory."))
    cluster = models.ForeignKey(
        Cluster, models.PROTECT, related_name="slbs", null=True, blank=True, verbose_name=_("MSFE cluster")
    )

    class Meta:
        verbose_name = _("SLB")
        verbose_name_plural = _("SLBs")
        ordering = ("namespace", "name")
        constraints = [
            models.UniqueConstraint(fields=("namespace", "name"), name="slb_name"),
            models.UniqueConstraint(fields=("unit", "external_id"), name="slb_external_id"),
        ]


class Snapshot(AppendOnlyModel):
    """One published version: immutable, numbered, with one digest for ever."""

    class Kind(models.TextChoices):
        CONFIG = "config", _("put into effect")
        RULE = "rule", _("cutover step")

    namespace = models.ForeignKey(
        Namespace, models.PROTECT, related_name="snapshots", verbose_name=_("namespace")
    )
    version = models.PositiveBigIntegerField(_("version"))
    digest = models.CharField(_("digest"), max_length=64)
    epoch = models.PositiveBigIntegerField(_("epoch"))
    body = models.TextField(_("document"), help_text=_("Canonical JSON; the digest is its SHA-256."))
    kind = models.CharField(_("kind"), max_length=10, choices=Kind)
    author = models.CharField(_("author"), max_length=150)
    comment = models.TextField(_("comment"), blank=True)
    created = models.DateTimeField(_("published"), default=timezone.now)

    class Meta:
        verbose_name = _("version")
        verbose_name_plural = _("versions")
        ordering = ("namespace", "-version")
        permissions = [("publish", _("Can put saved changes into effect"))]
        constraints = [models.UniqueConstraint(fields=("namespace", "version"), name="snapshot_version")]

    def __str__(self) -> str:
        return f"{self.namespace} v{self.version}"


class AuditEvent(AppendOnlyModel):
    """Who did what to what, with before, after and reason."""

    at = models.DateTimeField(_("at"), default=timezone.now, db_index=True)
    actor = models.CharField(_("who"), max_length=150)
    namespace = models.ForeignKey(
        Namespace,
        models.PROTECT,
        related_name="audit_events",
        null=True,
        blank=True,
        verbose_name=_("namespace"),
    )
    action = models.CharField(_("action"), max_length=80, help_text=_("As domain.update."))
    target = models.CharField(_("target"), max_length=300)
    before = models.JSONField(_("before"), null=True, blank=True)
    after = models.JSONField(_("after"), null=True, blank=True)
    reason = models.TextField(_("reason"), blank=True)

    class Meta:
        verbose_name = _("audit event")
        verbose_name_plural = _("audit events")
        ordering = ("-at", "-pk")
        indexes = [models.Index(fields=("namespace", "-at"), name="audit_event_recent")]

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.target}"


class Alarm(models.Model):
    """Something an operator must look at; at most one uncleared per namespace, kind and subject."""

    namespace = models.ForeignKey(
        Namespace, models.PROTECT, related_name="alarms", verbose_name=_("namespace")
    )
    kind = models.CharField(_("kind"), max_length=60)
    subject = models.CharField(_("subject"), max_length=120, blank=True)
    sentence = models.TextField(_("what is wrong"))
    #: What pages make the sentence from, in the reader's language; if empty, the stored one is shown.
    facts = models.JSONField(_("facts"), default=dict, blank=True)
    raised_at = models.DateTimeField(_("raised"), default=timezone.now)
    cleared_at = models.DateTimeField(_("cleared"), null=True, blank=True)

    class Meta:
        verbose_name = _("alarm")
        verbose_name_plural = _("alarms")
        ordering = ("-raised_at",)
        constraints = [
            models.UniqueConstraint(
                fields=("namespace", "kind", "subject"),
                condition=Q(cleared_at__isnull=True),
                name="alarm_raised_once",
            ),
        ]

    def __str__(self) -> str:
        return self.sentence


class AlarmTarget(Dated):
    """Where alarms are told by a webhook."""

    name = models.CharField(_("name"), max_length=63, unique=True, validators=[_name])
    namespace = models.ForeignKey(
        Namespace,
        models.PROTECT,
        related_name="alarm_targets",
        null=True,
        blank=True,
        verbose_name=_("namespace"),
        help_text=_("Only its alarms are told; empty: those of all namespaces."),
    )
    url = models.CharField(
        _("address"), max_length=500, validators=[webhooks.check_address], help_text=_("http:// or https://")
    )
    secret = models.CharField(
        _("secret"),
        max_length=200,
        help_text=_("Signs every call (HMAC-SHA256); the receiver knows it, too."),
    )
    enabled = models.BooleanField(_("in use"), default=True)

    class Meta:
        verbose_name = _("alarm target")
        verbose_name_plural = _("alarm targets")
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class AlarmDelivery(models.Model):
    """One thing that one target is told: that an alarm was raised, or is over. Every attempt has its id."""

    class Event(models.TextChoices):
        RAISED = "raised", _("raised")
        CLEARED = "cleared", _("cleared")
        TEST = "test", _("test")

    class State(models.TextChoices):
        PENDING = "pending", _("on its way")
        DELIVERED = "delivered", _("delivered")
        GAVE_UP = "gave_up", _("given up")

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    target = models.ForeignKey(
        AlarmTarget, models.CASCADE, related_name="deliveries", verbose_name=_("alarm target")
    )
    alarm = models.ForeignKey(
        Alarm, models.CASCADE, related_name="deliveries", null=True, verbose_name=_("alarm")
    )
    event = models.CharField(_("event"), max_length=10, choices=Event)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.PENDING)
    calls = models.PositiveIntegerField(_("calls"), default=0)
    answer = models.TextField(_("last answer"), blank=True)
    created = models.DateTimeField(_("created"), default=timezone.now)
    next_at = models.DateTimeField(_("next call"), default=timezone.now)
    #: Whoever calls now has it alone until then; if he dies, the next one has it afterwards.
    claimed_until = models.DateTimeField(_("claimed until"), null=True, blank=True)
    finished = models.DateTimeField(_("finished"), null=True, blank=True)

    class Meta:
        verbose_name = _("alarm delivery")
        verbose_name_plural = _("alarm deliveries")
        ordering = ("-created",)
        constraints = [
            models.UniqueConstraint(fields=("target", "alarm", "event"), name="alarm_delivery_once"),
        ]
        indexes = [models.Index(fields=("state", "next_at"), name="alarm_delivery_due")]

    def __str__(self) -> str:
        return f"{self.target} {self.event}"


class Probe(models.Model):
    """A question that the console asks one edge node over its control stream, and the answer."""

    class Kind(models.TextChoices):
        ECHO = "echo", _("control round trip")
        HANDSHAKE = "handshake", _("trial handshake")
        BACK_SOURCE = "back_source", _("back-source handshake")
        COUNT = "count", _("count of live sessions")
        SEND = "send", _("message to sessions")
        ACCEPTS = "accepts", _("handshakes it accepts")
        REHEARSE = "rehearse", _("rehearsal of a freeze")
        RETURNS = "returns", _("whose sessions were closed, and who is back")

    class State(models.TextChoices):
        PENDING = "pending", _("pending")
        SENT = "sent", _("sent")
        DONE = "done", _("answered")
        EXPIRED = "expired", _("not answered in time")

    node = models.ForeignKey(EdgeNode, models.CASCADE, related_name="probes", verbose_name=_("edge node"))
    kind = models.CharField(_("kind"), max_length=20, choices=Kind)
    params = models.JSONField(_("parameters"), default=dict, blank=True)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.PENDING)
    result = models.JSONField(_("answer"), null=True, blank=True)
    created = models.DateTimeField(_("asked"), default=timezone.now)
    finished = models.DateTimeField(_("answered"), null=True, blank=True)

    class Meta:
        verbose_name = _("probe")
        verbose_name_plural = _("probes")
        ordering = ("-created",)
        indexes = [models.Index(fields=("node", "state"), name="probe_waiting")]

    def __str__(self) -> str:
        return f"{self.kind} {self.node}"


class ApiToken(models.Model):
    """Lets a program act as a user; the text is shown once and only its hash is kept."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="api_tokens", verbose_name=_("user")
    )
    name = models.CharField(_("name"), max_length=100, help_text=_("What it is for."))
    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    created = models.DateTimeField(_("created"), auto_now_add=True)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True, editable=False)

    class Meta:
        verbose_name = _("API token")
        verbose_name_plural = _("API tokens")
        ordering: ClassVar[tuple[str, ...]] = ("-created",)

    def __str__(self) -> str:
        return self.name
