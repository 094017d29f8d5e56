from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("domains", "0001_initial"),
        ("units", "0004_messages_to_sessions"),
    ]

    operations = [
        migrations.AddField(
            model_name="domainunit",
            name="tls_port",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Written into redirects of clients that came by wss or https; 443 where it is empty.",
                null=True,
                verbose_name="TLS port",
            ),
        ),
        migrations.AddConstraint(
            model_name="domainunit",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("tls_port__isnull", True),
                    models.Q(("tls_port__gte", 1), ("tls_port__lte", 65535)),
                    _connector="OR",
                ),
                name="domain_unit_tls_port",
                violation_error_message="Ports go from 1 to 65535.",
            ),
        ),
    ]
