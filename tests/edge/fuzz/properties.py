"""Every property with the inputs that it is tried on: short in the test suite, long in a campaign."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.edge.fuzz import answers, frames, heads, requests
from tests.edge.fuzz.corpus import FRAMES, REQUESTS, RESPONSES, Kind
from tests.edge.fuzz.mutation import mutated


@dataclass(frozen=True)
class Property:
    """A sentence that holds for every input.

    Attributes:
        check: raises AssertionError where it does not hold for the bytes, cut at these places.
        examples: how many are tried in the test suite.
    """

    kind: Kind
    inputs: st.SearchStrategy[bytes]
    check: Callable[[bytes, list[int]], None]
    examples: int

    @property
    def sentence(self) -> str:
        """For reports."""
        return (self.check.__doc__ or "").partition(".\n")[0].rstrip(".")

    @property
    def name(self) -> str:
        """For command lines."""
        return f"{self.kind.directory}.{self.check.__name__.removeprefix('check_')}"


def _inputs(kind: Kind, grammar: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """By grammar, by grammar and damaged, and from the corpus and damaged."""
    kept = [data for data in kind.kept() if len(data) < 5000]
    return st.one_of(grammar, mutated(grammar), mutated(st.sampled_from(kept)))


def _properties() -> Iterable[Property]:
    asked = _inputs(REQUESTS, heads.request_heads())
    for check in (
        requests.check_same_reading,
        requests.check_stricter_by_rule,
        requests.check_any_cut,
        requests.check_forwarded,
    ):
        yield Property(REQUESTS, asked, check, 700)
    answered = _inputs(RESPONSES, heads.answers())
    for check in (
        answers.check_same_reading,
        answers.check_stricter_by_rule,
        answers.check_any_cut,
        answers.check_body,
        answers.check_switched,
        answers.check_passed_on,
    ):
        yield Property(RESPONSES, answered, check, 400)
    streamed = _inputs(FRAMES, frames.streams())
    for check in (
        frames.check_boundaries,
        frames.check_cut,
        frames.check_message_cut,
        frames.check_against_wsproto,
        frames.check_fast_path,
    ):
        yield Property(FRAMES, streamed, check, 200)


PROPERTIES = {found.name: found for found in _properties()}
