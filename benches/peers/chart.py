"""The picture: bars by peer, in colours and greys that stand on white and on dark."""

from xml.sax.saxutils import escape

from .report import mean_tcp, medians

PANELS = [
    ("TCP, one stream, Gbit/s", lambda f: mean_tcp(f, 1), "{:.2f}"),
    ("UDP of 1400 octets, loss-free, Gbit/s", lambda f: f["udp"], "{:.2f}"),
    ("Packets of 64 octets, thousands/s", lambda f: f["small"], "{:.0f}"),
]
OWN, LIMIT, OTHER, TEXT = "#2f9e6e", "#8a8f98", "#4a7fc1", "#808690"
WIDTH, LEFT, LINE, GAP = 760, 190, 26, 44


def picture(lines):
    """An SVG: a panel per figure, a line per peer with two bars, offload across the veth and cut before it."""
    on, cut = medians(lines, True), medians(lines, False)
    peers = [line for line in lines if line.get("about") in on and line["about"] != "veth"]
    out, y = [], 20
    for title, value, form in PANELS:
        out.append(f'<text x="0" y="{y}" font-weight="bold">{escape(title)}</text>')
        y += 12
        longest = max([value(figures[peer["about"]]) for peer in peers for figures in (on, cut)
                       if peer["about"] in figures] + [1e-9])
        for peer in peers:
            name = peer["about"]
            colour = OWN if name.startswith("obol") else OTHER if peer["rival"] else LIMIT
            label = escape(peer["label"].replace("*", ""))
            out.append(f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{label}</text>')
            for figures, top, opacity in ((on, 0, 1), (cut, 11, 0.5)):
                if name in figures:
                    figure = value(figures[name])
                    width = figure / longest * (WIDTH - LEFT - 60)
                    out.append(f'<rect x="{LEFT}" y="{y + top}" width="{width:.1f}" height="10" fill="{colour}"'
                               f' fill-opacity="{opacity}"/><text x="{LEFT + width + 5:.1f}" y="{y + top + 9}"'
                               f' font-size="10">{form.format(figure)}</text>')
            y += LINE
        y += GAP - 12
    out.append(f'<text x="0" y="{y - 12}" font-size="11">Upper bar: UDP offload across the veth. Lower, paler bar: '
               "packets cut before it. Two daemons and iperf3 on the same cores.</text>")
    style = f'font-family="sans-serif" font-size="13" fill="{TEXT}"'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" {style}>\n'
            + "\n".join(out) + "\n</svg>\n")
