"""The host names that clients use, where they lead in each unit, and the servers behind them."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from units.models import Cluster, Dated, Namespace, Unit


class Domain(Dated):
    class Protocol(models.TextChoices):
        WEBSOCKET = "websocket", _("WebSocket")

    class Dns(models.TextChoices):
        NONE = "none", _("no resolution")
        MANAGED = "managed", _("managed")

    class Correction(models.TextChoices):
        REDIRECT = "redirect", _("redirect")

    class RedirectScheme(models.TextChoices):
        HTTP = "http", "http"
        WS = "ws", "ws"
        AUTO = "auto", _("as the client's library wants it")

    namespace = models.ForeignKey(
        Namespace, models.PROTECT, related_name="domains", verbose_name=_("namespace")
    )
    name = models.CharField(
        _("domain"), max_length=253, unique=True, help_text=_("A host name: websocket.msha.tech.")
    )
    protocol = models.CharField(_("access type"), max_length=20, choices=Protocol, default=Protocol.WEBSOCKET)
    dns = models.CharField(_("DNS resolution type"), max_length=10, choices=Dns, default=Dns.NONE)
    multi_unit = models.BooleanField(
        _("multi-unit resolution"),
        default=True,
        help_text=_("The domain resolves to several units; otherwise to the center."),
    )
    correction = models.CharField(
        _("correction type"),
        max_length=20,
        choices=Correction,
        default=Correction.REDIRECT,
        help_text=_("What happens to a handshake in the wrong unit."),
    )
    redirect_scheme = models.CharField(
        _("redirect scheme"), max_length=10, choices=RedirectScheme, default=RedirectScheme.HTTP
    )

    class Meta:
        verbose_name = _("domain")
        verbose_name_plural = _("domains")
        ordering = ("namespace", "name")

    def __str__(self) -> str:
        return self.name


class DomainUnit(models.Model):
    """Where a domain leads in one unit."""

    domain = models.ForeignKey(Domain, models.CASCADE, related_name="domain_units", verbose_name=_("domain"))
    unit = models.ForeignKey(Unit, models.PROTECT, related_name="domain_units", verbose_name=_("unit"))
    cluster = models.ForeignKey(
        Cluster,
        models.PROTECT,
        related_name="domain_units",
        null=True,
        blank=True,
        verbose_name=_("effective cluster"),
    )
    port = models.PositiveIntegerField(
        _("port"), default=80, help_text=_("Written into redirects; left out when it is the scheme's own.")
    )

    tls_port = models.PositiveIntegerField(
        _("TLS port"),
        null=True,
        blank=True,
        help_text=_("Written into redirects of clients that came by wss or https; 443 where it is empty."),
    )

    class Meta:
        verbose_name = _("unit of a domain")
        verbose_name_plural = _("units of a domain")
        ordering = ("domain", "unit")
        constraints = [
            models.UniqueConstraint(fields=("domain", "unit"), name="domain_unit_once"),
            models.CheckConstraint(
                condition=models.Q(port__gte=1, port__lte=65535),
                name="domain_unit_port",
                violation_error_message=_("Ports go from 1 to 65535."),
            ),
            models.CheckConstraint(
                condition=models.Q(tls_port__isnull=True) | models.Q(tls_port__gte=1, tls_port__lte=65535),
                name="domain_unit_tls_port",
                violation_error_message=_("Ports go from 1 to 65535."),
            ),
        ]

    def __str__(self) -> str:
        return self.subdomain

    @property
    def subdomain(self) -> str:
        """The unit sub-domain: ``center.websocket.msha.tech``."""
        return f"{self.unit.code}.{self.domain.name}"


class Uri(Dated):
    class Balance(models.TextChoices):
        CONSISTENT_HASH = "consistent_hash", _("consistent hash")
        ROUND_ROBIN = "round_robin", _("round robin")
        LEAST_SESSIONS = "least_sessions", _("least sessions")

    domain = models.ForeignKey(Domain, models.CASCADE, related_name="uris", verbose_name=_("domain"))
    path = models.CharField(_("URI"), max_length=500, default="/")
    balance = models.CharField(
        _("load balancing"), max_length=20, choices=Balance, default=Balance.CONSISTENT_HASH
    )

    class Meta:
        verbose_name = _("URI")
        verbose_name_plural = _("URIs")
        ordering = ("domain", "path")
        constraints = [
            models.UniqueConstraint(
                fields=("domain", "path"),
                name="uri_path",
                violation_error_message=_("This domain already has this URI."),
            ),
        ]

    def __str__(self) -> str:
        return self.path


class BackSources(models.Model):
    """The servers of one unit behind one URI."""

    uri = models.ForeignKey(Uri, models.CASCADE, related_name="back_sources", verbose_name=_("URI"))
    unit = models.ForeignKey(Unit, models.PROTECT, related_name="back_sources", verbose_name=_("unit"))
    servers = models.TextField(_("back-source servers"), help_text=_("IP:PORT, separated by commas."))

    class Meta:
        verbose_name = _("back-source servers")
        verbose_name_plural = _("back-source servers")
        ordering = ("uri", "unit")
        constraints = [models.UniqueConstraint(fields=("uri", "unit"), name="back_sources_once")]

    def __str__(self) -> str:
        return self.servers
