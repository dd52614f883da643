"""The table in README.md, and the exit code."""

import os
import sys
import tomllib

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
README = os.path.join(HERE, "README.md")
EXPECTED = os.path.join(HERE, "expected-failures.toml")
BEGIN, END = "<!-- results: written by interop/run -->", "<!-- end of results -->"


def finish(results, write_table):
    """Prints a summary, writes the table if asked to, and returns the exit code."""
    with open(EXPECTED, "rb") as file:
        expected = tomllib.load(file)
    failed = [r for r in results if r.failure]
    surprises = [r for r in failed if r.key not in expected]
    stale = [r for r in results if not r.failure and r.key in expected]
    if write_table:
        _write(results, expected)
        unknown = set(expected) - {r.key for r in results}
        stale_names = [r.key for r in stale] + sorted(unknown)
    else:
        stale_names = [r.key for r in stale]
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed, {len(failed) - len(surprises)} of them as expected")
    for result in surprises:
        print(f"failed: {result.key}, logs in {result.logs}", file=sys.stderr)
    for name in stale_names:
        print(f"{name} is in expected-failures.toml, but passes or is unknown", file=sys.stderr)
    return 1 if surprises or stale_names else 0


def _write(results, expected):
    lines = ["| scenario | role of obol | result | peer | shows |", "| --- | --- | --- | --- | --- |"]
    for r in results:
        if not r.failure:
            said = f"passed in {r.seconds:.1f} s"
        elif r.key in expected:
            said = f"fails as expected: {expected[r.key]}"
        else:
            said = "**failed**"
        lines.append(f"| {r.name} | {r.role} | {said} | {r.peer or '-'} | {r.shows} |")
    passed = sum(not r.failure for r in results)
    table = "\n".join([BEGIN, f"{passed} of {len(results)} passed.", "", *lines, END])
    with open(README) as file:
        text = file.read()
    before, rest = text.split(BEGIN)
    with open(README, "w") as file:
        file.write(before + table + rest.split(END)[1])
