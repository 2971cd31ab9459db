"""Bytes from a web server, by ranges where it gives them."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

SECONDS = 30.0
AHEAD = 2**16  # the least that one request asks for


def ranges(url: str, seconds: float = SECONDS) -> Callable[[int, int], bytes]:
    """A function that gives the bytes of `url` from one place up to another, or as many as a server gives at a time.

    A server that knows no ranges is read from its first byte on.
    """
    whole: list[Any] = []  # the answer of a server that gives everything at once

    def pull(at: int, upto: int) -> bytes:
        try:
            if whole:
                return bytes(whole[0].read(max(upto - at, AHEAD)))
            last = max(upto, at + AHEAD) - 1
            request = urllib.request.Request(url, headers={"Range": f"bytes={at}-{last}"})
            answer = urllib.request.urlopen(request, timeout=seconds)
            if answer.status == 206:
                with answer:
                    given = str(answer.headers.get("Content-Range", ""))
                    if not given.startswith(f"bytes {at}-"):
                        raise OSError(f"load: {url!r} must give bytes from {at} on, gave {given[:60]!r}; ask its keeper")
                    return bytes(answer.read(last + 1 - at))
            if at:
                raise OSError(f"load: {url!r} gave ranges before and now does not; load it again")
            whole.append(answer)
            return bytes(answer.read(AHEAD))
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing there from `at` on
                return b""
            raise OSError(f"load: {url!r} answers {error.code} {error.reason}; check the address") from None
        except (urllib.error.URLError, http.client.HTTPException) as error:
            raise OSError(f"load: {url!r} cannot be read ({getattr(error, 'reason', error)}); try again") from None

    return pull
