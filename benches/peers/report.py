"""The page with the tables: medians over the rounds, ratios and goals."""

import os
import shutil
import statistics
import subprocess

from .get import ROOT

KEPT = "## What limits obol"  # from here on the page is written by hand and stays

COLUMNS = [
    ("TCP 1 there / back", "{tcp1:.2f} / {tcp1_back:.2f}"),
    ("TCP 4 there / back", "{tcp4:.2f} / {tcp4_back:.2f}"),
    ("both ways at once", "{both:.2f}"),
    ("Gbit per busy core", "{per_core:.2f}"),
    ("UDP 1400 loss-free", "{udp:.2f}"),
    ("64 B kpps", "{small:.0f}"),
    ("ping idle p50 / p99", "{ping_idle_p50:.0f} / {ping_idle_p99:.0f}"),
    ("ping under load p50 / p99", "{ping_load_p50:.0f} / {ping_load_p99:.0f}"),
    ("MiB before / after", "{rss_before:.0f} / {rss_after:.0f}"),
    ("stolen / others %", "{stolen:.0f} / {others:.0f}"),
]

INTRODUCTION = """\
Both ends, both daemons, iperf3 and all else share the cores; iperf3's and ping's own cost is in every figure. Medians
of the rounds. TCP and UDP in Gbit/s of what arrived at the far end ("there": from the first end to the second). UDP of
1400 octets at the highest rate with at most 0.1 % loss; of a flood of 64-octet packets, those that arrived, in thousands
per second; ping in microseconds, "under load" beside TCP both ways at once. "Gbit per busy core" is all five TCP runs
over the core seconds they took; those that others took are not among them. Memory (RSS) is that of the larger daemon,
before everything and after the flood. "Stolen" is what other guests of the host had of the cores, "others" what
processes outside the run had, in % of one core. MTU 1500 on the veth, 1400 in every tunnel."""


def machine():
    """Processor, cores, what of AES and vectors they have, and kernel."""
    with open("/proc/cpuinfo") as file:
        fields = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    has = set((fields.get("flags") or fields.get("Features") or "").split())
    features = [name for name in ("aes", "pclmulqdq", "avx2", "avx512f", "vaes", "vpclmulqdq", "pmull") if name in has]
    name = fields.get("model name", "unknown")
    return f"{name}, {os.cpu_count()} cores ({' '.join(features)}), Linux {os.uname().release}"


def commit():
    if not shutil.which("git"):
        return "unknown"
    said = subprocess.run(["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    return said.stdout.strip() or "unknown"


def medians(lines, offload):
    """By peer, the median of every figure."""
    visits = {}
    for line in lines:
        if line.get("offload") is offload and "failed" not in line:
            visits.setdefault(line["peer"], []).append(line)
    return {peer: {key: statistics.median(line[key] for line in all_ if key in line) for key in all_[-1]
                   if key not in ("peer", "offload", "round")}
            for peer, all_ in visits.items()}


def mean_tcp(figures, streams):
    """TCP of both directions, mean."""
    return (figures[f"tcp{streams}"] + figures[f"tcp{streams}_back"]) / 2


def best(lines, figures, value, pick=max):
    """The best of obol's rivals as (figure, label)."""
    labels = {line["about"]: line["label"] for line in lines if line.get("rival")}
    return pick(((value(figures[name]), label) for name, label in labels.items() if name in figures), default=None)


def goals(lines):
    """Rows of (what, ratio as text, goal as text, whether it is met), as far as there are figures."""
    on, cut = medians(lines, True), medians(lines, False)

    def one(figures):
        return mean_tcp(figures, 1)

    def against(what, peer, figures, value, goal):
        rival = best(lines, figures, value)
        if peer in figures and rival:
            ratio = value(figures[peer]) / rival[0] if rival[0] else float("inf")
            yield what + f", of {rival[1]}", f"{ratio:.2f}", f">= {goal}", ratio >= goal

    yield from against("TCP, one stream", "obol-udp", on, one, 3.5)
    yield from against("TCP, four streams", "obol-udp", on, lambda f: mean_tcp(f, 4), 3)
    yield from against("TCP, one stream, offload cut", "obol-udp", cut, one, 2.5)
    yield from against("TCP, one stream, plain ESP", "obol-esp", on, one, 1.5)
    if {"obol-udp", "forward"} <= on.keys():
        ratio = one(on["obol-udp"]) / one(on["forward"])
        yield "TCP, one stream, of the forwarder without crypto", f"{ratio:.2f}", ">= 0.75", ratio >= 0.75
    yield from against("TCP per busy core", "obol-udp", on, lambda f: f["per_core"], 3)
    yield from against("UDP of 1400 octets, loss-free", "obol-udp", on, lambda f: f["udp"], 2)
    yield from against("packets of 64 octets", "obol-udp", on, lambda f: f["small"], 2)
    rival = best(lines, on, lambda f: f["ping_idle_p50"], min)
    if "obol-udp" in on and rival:
        ratio = on["obol-udp"]["ping_idle_p50"] / rival[0]
        yield f"ping, p50, of {rival[1]}", f"{ratio:.2f}", "<= 1", ratio <= 1
    if "obol-udp" in on:
        both = [figures[peer] for figures in (on, cut) for peer in ("obol-udp", "obol-esp") if peer in figures]
        growth = max(f["rss_after"] - f.get("rss_flood", f["rss_before"]) for f in both)
        yield "memory: growth by floods of datagrams, MiB", f"{growth:.1f}", "<= 1", growth <= 1


def ratios(lines, figures):
    """Rows of how often obol is each peer."""
    values = (lambda f: mean_tcp(f, 1), lambda f: mean_tcp(f, 4), lambda f: f["both"], lambda f: f["per_core"],
              lambda f: f["udp"], lambda f: f["small"], lambda f: f["ping_idle_p50"])
    for line in lines:
        name = line.get("about")
        if name in figures and not name.startswith("obol"):
            cells = []
            for value in values:
                ours = [value(figures[own]) if own in figures else None for own in ("obol-udp", "obol-esp")]
                theirs = value(figures[name])
                cells.append(" / ".join("-" if own is None or not theirs else f"{own / theirs:.2f}" for own in ours))
            yield [line["label"], *cells]


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def page(lines):
    """The whole page, without what is written by hand."""
    run = next(line for line in lines if "machine" in line)
    labels = {line["about"]: line for line in lines if "about" in line}
    out = ["# obol beside other tunnels in user space", "", f"`benches/compare --rounds {run['rounds']} --seconds"
           f" {run['seconds']} --write`", f"on {run['machine']}; commit {run['commit']}.",
           f"{run['took'] / 60:.0f} minutes in all; load {run['load']:.1f} at the start; {run['stolen']:.0f} % of one"
           " core stolen on average.", "", INTRODUCTION, "", "## Goals", ""]
    out += table(["obol's ratio", "is", "goal", ""], [[what, ratio, goal, "ok" if met else "**short**"]
                                                     for what, ratio, goal, met in goals(lines)])
    for offload, title in ((True, "UDP offload across the veth"),
                           (False, "Cut before the veth, as for a network card without UDP offload")):
        figures = medians(lines, offload)
        out += ["", f"## {title}", ""]
        rows = []
        for name, line in labels.items():
            if "not_run" in line:
                rows.append([line["label"], f"not run: {line['not_run']}", *[""] * (len(COLUMNS) - 1)])
            elif name not in figures:
                rows.append([line["label"], "failed", *[""] * (len(COLUMNS) - 1)])
            else:
                rows.append([line["label"], *(form.format(**figures[name]) for _, form in COLUMNS)])
        out += table(["", *(title for title, _ in COLUMNS)], rows)
        out += ["", "obol as a multiple of each, ESP in UDP / plain ESP:", ""]
        out += table(["of", "TCP 1", "TCP 4", "both ways", "per busy core", "UDP 1400", "64 B", "ping p50"],
                     ratios(lines, figures))
    failed = [line for line in lines if "failed" in line]
    if failed:
        out += ["", "## Failed visits", ""]
        out += [f"- round {line['round']}, {line['peer']}, offload {'on' if line['offload'] else 'cut'}:"
                f" {line['failed']}" for line in failed]
    out += ["", "## What was run", ""]
    out += [f"- {line['label']}: {line.get('version') or 'not run: ' + line['not_run']}" for line in labels.values()]
    return "\n".join([*out, ""])


def write(path, text):
    """Replaces the page, but for what is written by hand."""
    kept = ""
    if os.path.exists(path):
        with open(path) as file:
            _, mark, rest = file.read().partition(KEPT)
            kept = f"\n{mark}{rest}" if mark else ""
    with open(path, "w") as file:
        file.write(text + kept)
