"""Secrets and keys out of charon's log at level 4."""

import re
from dataclasses import dataclass, field

DUMP = re.compile(r"^\d+\[(?:IKE|CHD|ENC|LIB)\]\s+\d+: ((?:[0-9A-F]{2} ){1,16})")
HEAD = re.compile(r"^\d+\[(?:IKE|CHD)\] (.+?) => (\d+) bytes")
SELECTED = re.compile(r"selected proposal: (IKE|ESP):(\S+)")
PARSED = re.compile(r"parsed (IKE_AUTH|CREATE_CHILD_SA) (request|response)")
SPIS = re.compile(r"CHILD_SA \S+ established with SPIs ([0-9a-f]{8})_i ([0-9a-f]{8})_o")

IKE_NAMES = {
    "key exchange secret": "shared", "nonces": "nonces", "SKEYSEED": "skeyseed",
    "Sk_d secret": "sk_d", "Sk_ai secret": "sk_ai", "Sk_ar secret": "sk_ar",
    "Sk_ei secret": "sk_ei", "Sk_er secret": "sk_er",
    "Sk_pi secret": "sk_pi", "Sk_pr secret": "sk_pr",
}
CHILD_NAMES = {
    "encryption initiator key": "encr_i", "integrity initiator key": "integ_i",
    "encryption responder key": "encr_r", "integrity responder key": "integ_r",
    "key exchange secret": "shared", "seed": "nonces", "secret": "shared",
}


@dataclass
class Secrets:
    """What one charon logged: for each SA, in the order in which they were made."""

    ike: list = field(default_factory=list)
    children: list = field(default_factory=list)


def read(text):
    """The secrets in a log."""
    out = Secrets()
    algorithms = {"IKE": "", "ESP": ""}
    requester = True
    for name, value, line in _entries(text):
        if match := SELECTED.search(line):
            algorithms[match[1]] = match[2]
        elif match := PARSED.search(line):
            requester = match[2] == "response"
        elif match := SPIS.search(line):
            _spis(out.children, match[1], match[2], requester)
        elif name == "key exchange secret" and "[IKE]" in line:
            out.ike.append({"algorithms": algorithms["IKE"], "shared": value})
        elif name in IKE_NAMES and "[IKE]" in line and out.ike:
            out.ike[-1][IKE_NAMES[name]] = value
        elif "[CHD]" in line and name in CHILD_NAMES:
            known = CHILD_NAMES[name]
            if not out.children or "encr_r" in out.children[-1] and known in ("shared", "nonces", "encr_i"):
                out.children.append({"ike": str(len(out.ike) - 1), "algorithms": algorithms["ESP"]})
            out.children[-1][known] = value
    for child in out.children:
        # With a key exchange of its own, the seed is g^ir and then the nonces.
        child["nonces"] = child["nonces"].removeprefix(child.get("shared", ""))
    return out


def _spis(children, inbound, outbound, requester):
    """The SPI of packets to the requester is the one that the requester chose."""
    if children and "spi_i" not in children[-1]:
        to_requester, to_replier = (inbound, outbound) if requester else (outbound, inbound)
        children[-1].update(spi_i=to_requester, spi_r=to_replier, requester="us" if requester else "them")


def _entries(text):
    """Every line, with the name and the hexadecimal value of the dump that it begins, if any."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        head = HEAD.match(line)
        if not head:
            yield None, None, line
            continue
        value = ""
        thread = line.split("[")[0]
        for following in lines[at + 1 :]:
            if following.split("[")[0] != thread:
                continue
            dump = DUMP.match(following)
            if not dump or len(value) >= 2 * int(head[2]):
                break
            value += dump[1].replace(" ", "").lower()
        yield head[1], value[: 2 * int(head[2])], line
