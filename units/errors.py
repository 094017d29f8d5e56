"""What can go wrong in the services of this app; each error is a sentence that says what to do."""

from dataclasses import dataclass

from django.utils.translation import gettext

from msha.steering.errors import Terminal, Transient


@dataclass(eq=False)
class Refused(Terminal):
    """An act that the present state or the given input does not allow; shown to whoever asked for it."""

    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(eq=False)
class Unsendable(Refused):
    """A message that cannot be sent, with the part of the order that is at fault."""

    place: str


@dataclass(eq=False)
class VersionConflict(Transient):
    """Somebody published between reading and publishing."""

    namespace: str
    expected: int
    found: int

    def __str__(self) -> str:
        return gettext(
            "Namespace %(namespace)s is at version %(found)d, not %(expected)d any more:"
            " somebody published meanwhile. Look at the new version and try again."
        ) % {"namespace": self.namespace, "found": self.found, "expected": self.expected}


@dataclass(eq=False)
class PublishingStopped(Terminal):
    """Nothing may be published until an operator has looked (PROTOCOL P4)."""

    namespace: str
    reason: str

    def __str__(self) -> str:
        return gettext("Publishing is stopped in namespace %(namespace)s: %(reason)s") % {
            "namespace": self.namespace,
            "reason": self.reason,
        }
