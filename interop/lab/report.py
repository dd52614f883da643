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
    surprises_in_p0 = _unknown_in_p0()
    for name in surprises_in_p0:
        print(f"p0.toml names {name}, which does not exist", file=sys.stderr)
    if write_table:
        _write(results, expected(EXPECTED), took)
    return judge(results, EXPECTED, whole, took) or (1 if surprises_in_p0 else 0)


def expected(path):
    """The list of expected failures at `path`."""
    with open(path, "rb") as file:
        return tomllib.load(file)


def judge(results, path, whole, took):
    """Prints what failed and what should have, by the list at `path`, and returns the exit code."""
    known = expected(path)
    failed = [r for r in results if r.failure]
    surprises = [r for r in failed if r.key not in known]
    stale = [r for r in results if not r.failure and r.key in known]
    if whole:
        unknown = set(known) - {r.key for r in results}
        stale_names = [r.key for r in stale] + sorted(unknown)
    else:
        stale_names = [r.key for r in stale]
    as_expected = len(failed) - len(surprises)
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed, {as_expected} of them as expected; {took}")
    for result in surprises:
        print(f"failed: {result.key}, logs in {result.logs}", file=sys.stderr)
    for name in stale_names:
        print(f"{name} is in expected-failures.toml, but passes or is unknown", file=sys.stderr)
    return 1 if surprises or stale_names else 0


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


def _write(results, known, took):
    lines = ["| scenario | role of obol | result | peer | shows |", "| --- | --- | --- | --- | --- |"]
    for r in results:
        lines.append(f"| {r.name} | {r.role} | {said(r, known)} | {r.peer or '-'} | {r.shows} |")
    passed = sum(not r.failure for r in results)
    replace(README, [f"{passed} of {len(results)} passed, in {took}.", "", *lines, "", *_p0(results)])


def said(result, known):
    """What a table says of a result."""
    if not result.failure:
        return f"passed in {result.seconds:.1f} s"
    return f"fails as expected: {known[result.key]}" if result.key in known else "**failed**"


def replace(path, lines):
    """Puts `lines` between the two marks of a file."""
    with open(path) as file:
        text = file.read()
    before, rest = text.split(BEGIN)
    with open(path, "w") as file:
        file.write(before + "\n".join([BEGIN, *lines, END]) + rest.split(END)[1])
