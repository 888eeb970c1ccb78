"""What can go wrong between a teacher and us: for one attempt, one request, or the whole run."""

from __future__ import annotations


class TeacherError(OSError):
    """No further answer can be had, and why: for people. Answers that came are kept."""


class BudgetExceededError(TeacherError):
    """The next request might cost more than is left of `max_cost`."""


class RetryableError(Exception):
    """One attempt came to nothing and may be repeated.

    `wait_s`: how long the server asks us to wait. `received`: the text that came before a stream
    was cut; it is no answer, but it has probably been charged for.
    """

    def __init__(self, reason: str, *, wait_s: float = 0.0, received: str | None = None) -> None:
        super().__init__(reason)
        self.wait_s, self.received = wait_s, received


class RequestFailedError(Exception):
    """One request will not be answered: refused, or failed more often than is allowed."""
