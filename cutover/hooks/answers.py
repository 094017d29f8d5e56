"""What the answer of a hook means: yes, not yet, try again, or no.

Kept as facts, so that whoever reads of it does so in his language.

| answer | meaning |
| --- | --- |
| 200 with a JSON object in which ``ok`` is true | yes |
| 202 or 425; 409 with ``Retry-After`` | not yet: asked again soon, until the deadline |
| 408, 429, 5xx, no answer, no whole answer in time | failed; tried again until the deadline |
| everything else: 200 without ``ok``, redirects, 4xx | no: trying again would not help |
"""

import json
from enum import StrEnum
from typing import Any

from django.utils.translation import gettext

from units.webhooks import QUOTED, Answer, CallFailed

Facts = dict[str, Any]


class Verdict(StrEnum):
    YES = "yes"
    NOT_YET = "not_yet"
    AGAIN = "again"
    NO = "no"


def judged(answer: Answer) -> tuple[Verdict, Facts]:
    """What the answer means, and the facts about it that are kept."""
    verdict = _verdict(answer)
    text = " ".join(answer.text.split())[:QUOTED].replace("\x00", "")
    facts: Facts = {"status": answer.status, "text": text, "ms": answer.elapsed_ms, "means": str(verdict)}
    if answer.retry_after_s is not None:
        facts["retry_after_s"] = answer.retry_after_s
    return verdict, facts


def unanswered(error: CallFailed) -> tuple[Verdict, Facts]:
    """The same of a call that had no answer."""
    return Verdict.AGAIN, {"failed": error.facts, "means": str(Verdict.AGAIN)}


def refused(why: str, **facts: Any) -> tuple[Verdict, Facts]:
    """The same of a call that was not made."""
    return Verdict.NO, {"refused": why, "means": str(Verdict.NO), **facts}


def _verdict(answer: Answer) -> Verdict:
    match answer.status:
        case 200:
            return Verdict.YES if _says_ok(answer) else Verdict.NO
        case 202 | 425:
            return Verdict.NOT_YET
        case 409 if answer.retry_after_s is not None:
            return Verdict.NOT_YET
        case 408 | 429:
            return Verdict.AGAIN
        case status if status >= 500:
            return Verdict.AGAIN
        case _:
            return Verdict.NO


def _says_ok(answer: Answer) -> bool:
    """Whether the receiver itself said yes: a login page or a fallback of a proxy answers 200, too."""
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("ok") is True


def sentence(facts: Facts) -> str:
    """The answer in the reader's language; "" where there was none yet."""
    if not facts:
        return ""
    if "status" in facts:
        return _answered(facts)
    if "failed" in facts:
        return CallFailed(facts["failed"]).problem
    match facts.get("refused"):
        case "host":
            return gettext("not called: %(host)s is not in MSHA_HOOK_ALLOWED_HOSTS") % facts
        case "removed":
            return gettext("not called: the hook was removed")
        case _:
            return gettext("the worker that called it was lost")


def _answered(facts: Facts) -> str:
    status = facts["status"]
    said = _quoted(facts)
    match facts["means"]:
        case Verdict.YES:
            return gettext("yes (%(ms)d ms)") % facts
        case Verdict.NOT_YET:
            return gettext("not yet (%(status)d)%(said)s") % {"status": status, "said": said}
        case _ if status == 200:
            return gettext("answered 200 without “ok”: true%(said)s") % {"said": said}
        case _ if 300 <= status < 400:
            return gettext("answered %(status)d; redirects are not followed") % {"status": status}
        case _:
            return gettext("answered %(status)d%(said)s") % {"status": status, "said": said}


def _quoted(facts: Facts) -> str:
    return f": {facts['text']}" if facts.get("text") else ""
