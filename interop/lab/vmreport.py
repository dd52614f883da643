"""The results in the VM: of all runs that were kept, in a file, and as a table in vm/README.md."""

import json
import os

from . import report

HERE = os.path.join(report.HERE, "vm")
EXPECTED = os.path.join(HERE, "expected-failures.toml")
RESULTS = os.path.join(HERE, "results.json")  # key -> what the last run that was kept said
KEPT = ("name", "against", "plane", "failure", "seconds", "peer", "linux", "shows")


def finish(results, whole, took, linux, keep):
    """Prints a summary, keeps the results if asked to, and returns the exit code. `whole`: nothing was left out."""
    if keep:
        _keep(results, linux)
    return report.judge(results, EXPECTED, whole, took)


def _keep(results, linux):
    import scenarios

    with open(RESULTS) as file:
        kept = json.load(file)
    for r in results:
        kept[f"{r.key}/{linux}"] = {**{name: getattr(r, name, linux) for name in KEPT}, "failure": bool(r.failure), "seconds": round(r.seconds)}
    order = [scenario.name for scenario in scenarios.in_vm()]
    known = {key: kept[key] for key in kept if kept[key]["name"] in order}
    kept = {key: known[key] for key in sorted(known, key=lambda key: order.index(known[key]["name"]))}
    with open(RESULTS, "w") as file:
        json.dump(kept, file, indent=1)
        file.write("\n")
    lines = []
    for linux in sorted({one["linux"] for one in kept.values()}, reverse=True):
        lines += _table({key: one for key, one in kept.items() if one["linux"] == linux}, linux, report.expected(EXPECTED))
    report.replace(os.path.join(HERE, "README.md"), lines[1:])


def _table(kept, linux, known):
    """One line for a scenario with a peer: what became of it on each data plane of obol."""
    planes = ("userspace", "kernel")
    lines = [f"| scenario | peer | obol {' | obol '.join(planes)} | shows |", "| --- | --- |" + " --- |" * (len(planes) + 1)]
    rows = {}
    for key, one in kept.items():
        key = key.removesuffix(f"/{linux}")
        said = "passed" if not one["failure"] else f"fails as expected: {known[key]}" if key in known else "**failed**"
        row = rows.setdefault((one["name"], one["against"]), {"one": one})
        row[one["plane"]] = f"{said} ({one['seconds']} s)"
    for (name, _), row in rows.items():
        said = " | ".join(row.get(plane, "-") for plane in planes)
        lines.append(f"| {name} | {row['one']['peer']} | {said} | {row['one']['shows']} |")
    passed = sum(not one["failure"] for one in kept.values())
    return ["", f"{passed} of {len(kept)} passed on {linux}.", "", *lines]
