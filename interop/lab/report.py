"""The table in README.md, and the exit code."""

import os
import sys
import tomllib

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
README = os.path.join(HERE, "README.md")
EXPECTED = os.path.join(HERE, "expected-failures.toml")
P0 = os.path.join(HERE, "p0.toml")
BEGIN, END = "<!-- results: written by interop/run -->", "<!-- end of results -->"


def finish(results, whole, took, write_table):
    """Prints a summary, writes the table if asked to, and returns the exit code. `whole`: nothing was left out."""
    with open(EXPECTED, "rb") as file:
        expected = tomllib.load(file)
    failed = [r for r in results if r.failure]
    surprises = [r for r in failed if r.key not in expected]
    stale = [r for r in results if not r.failure and r.key in expected]
    surprises_in_p0 = _unknown_in_p0()
    for name in surprises_in_p0:
        print(f"p0.toml names {name}, which does not exist", file=sys.stderr)
    if write_table:
        _write(results, expected, took)
    if whole:
        unknown = set(expected) - {r.key for r in results}
        stale_names = [r.key for r in stale] + sorted(unknown)
    else:
        stale_names = [r.key for r in stale]
    as_expected = len(failed) - len(surprises)
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed, {as_expected} of them as expected; {took}")
    for result in surprises:
        print(f"failed: {result.key}, logs in {result.logs}", file=sys.stderr)
    for name in stale_names:
        print(f"{name} is in expected-failures.toml, but passes or is unknown", file=sys.stderr)
    return 1 if surprises or stale_names or surprises_in_p0 else 0


def _wanted():
    """Of what others prove: group -> name -> scenarios, test, reason to wait."""
    with open(P0, "rb") as file:
        return tomllib.load(file)


def _unknown_in_p0():
    from scenarios import load

    known = {scenario.name for scenario in load()}
    entries = [entry for group in _wanted().values() for entry in group.values()]
    named = {name for entry in entries for name in entry.get("scenario", [])}
    tests = {entry["test"] for entry in entries if "test" in entry}
    root = os.path.dirname(HERE)
    there = {t for t in tests if any(os.path.exists(f"{root}/{crate}/tests/{t}.rs") for crate in ("ike", "daemon"))}
    return sorted(named - known) + sorted(tests - there)


def _p0(results):
    """The table of what others' suites prove, and where we do."""
    passed = {r.name for r in results if not r.failure}
    lines = ["### What other daemons' suites prove, and where obol does", "", "| there | shown by | waits for |", "| --- | --- | --- |"]
    shown = waits = 0
    for group in _wanted().values():
        for name, entry in group.items():
            by = [f"`{s}`" if s in passed else f"`{s}` (not in this run, or failed)" for s in entry.get("scenario", [])]
            by += [f"test `{entry['test']}`"] if "test" in entry else []
            shown += bool(by)
            waits += "waits" in entry
            lines.append(f"| {name} | {', '.join(by) or '-'} | {entry.get('waits', '')} |")
    lines[1:1] = ["", f"{shown} are shown, {waits} wait in whole or in part."]
    return lines


def _write(results, expected, took):
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
    table = "\n".join([BEGIN, f"{passed} of {len(results)} passed, in {took}.", "", *lines, "", *_p0(results), END])
    with open(README) as file:
        text = file.read()
    before, rest = text.split(BEGIN)
    with open(README, "w") as file:
        file.write(before + table + rest.split(END)[1])
