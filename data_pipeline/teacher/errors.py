"""Errors of a teacher: of one attempt, of one request, or of the whole run."""

from __future__ import annotations


class TeacherError(OSError):
    """No further answer can be had; the message says why. Answers received so far are kept."""


class BudgetExceededError(TeacherError):
    """The next request might cost more than what is left of `max_cost`."""


class RetryableError(Exception):
    """A request attempt failed and can be retried.

    `wait_s` is the pause in seconds that the server requested. `received` is the text that arrived
    before a stream broke off; it is not an answer, but was probably charged for.
    """

    def __init__(self, reason: str, *, wait_s: float = 0.0, received: str | None = None) -> None:
        """Stores the reason, the pause, and the partial text."""
        super().__init__(reason)
        self.wait_s, self.received = wait_s, received


class RequestFailedError(Exception):
    """A request was refused, or failed on every attempt."""
