"""Waiting for something to become true, with a deadline and with words for when it does not."""

import os
import time

# How much slower than a common machine this one is: every deadline is so many times as far away.
PATIENCE = float(os.environ.get("LAB_PATIENCE", "1"))


class Failure(Exception):
    """A scenario did not hold; the text says what was expected and what was seen."""


def until(what, check, seconds=10.0, interval=0.05):
    """Calls `check` until it returns something true and returns that.

    A check that raises `Failure` is not true yet. After `seconds` a `Failure` names `what`
    and the last thing seen.
    """
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    seen = None
    while True:
        began = time.monotonic()
        try:
            seen = check()
            if seen:
                return seen
        except Failure as failure:
            seen = failure
        if time.monotonic() >= deadline:
            raise Failure(f"not within {seconds:g} s: {what} (last seen: {seen})")
        time.sleep(max(interval, time.monotonic() - began))  # to look takes half of the time at most


def expect(condition, text):
    """Raises a `Failure` with `text` unless `condition` holds."""
    if not condition:
        raise Failure(text)
