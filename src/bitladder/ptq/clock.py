"""A time limit that every stage looks at: whoever finds it over leaves a complete network and returns."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """When to stop, by `time.monotonic`; never, unless said.

    >>> Clock().over(), Clock.of(0.0).over(), Clock.of(None).over()
    (False, True, False)
    """

    end: float = math.inf

    @classmethod
    def of(cls, limit: float | None) -> Clock:
        """A clock that runs out so many seconds from now."""
        return cls() if limit is None else cls(time.monotonic() + limit)

    def over(self) -> bool:
        """Whether there is no time left."""
        return time.monotonic() >= self.end

    def share(self, part: float) -> Clock:
        """A clock that runs out when so much of the time left is gone."""
        now = time.monotonic()
        return self if self.end == math.inf else Clock(now + part * max(self.end - now, 0.0))


ENDLESS = Clock()


class OutOfTime(Exception):
    """Raised inside a stage that cannot return early, and caught by the one that began it."""
