#!/bin/bash
# Packets that pass in clear while there is no SA, on request, on the kernel's data plane: the peer has no obol, gets one, and
# loses it. Says "ok" or "FAIL" for each; exits with the number of failures.
#
#   interop/vm/run --script interop/vm/clear.sh
set -u
. interop/vm/common.sh

configure() { # configure HOST NUMBER
    local peer=$((3 - $2))
    cat >"$1.toml" <<END
[daemon]
dataplane = "kernel"
log = "debug"
retransmit_timeout = "2s"
[connections.hosts]
local_addrs = ["192.0.2.$2"]
remote_addrs = ["192.0.2.$peer"]
local = { auth = "psk", id = "@host$2" }
remote = { auth = "psk", id = "@host$peer" }
[connections.hosts.children.pings]
mode = "transport"
local_ts = ["192.0.2.$2/32[icmp]"]
remote_ts = ["192.0.2.$peer/32[icmp]"]
start_action = "trap"
cleartext = "opportunistic"
[connections.hosts.children.strict]
mode = "transport"
local_ts = ["192.0.2.$2/32[tcp]"]
remote_ts = ["192.0.2.$peer/32[tcp]"]
start_action = "trap"
[connections.hosts.children.nets]
local_ts = ["172.16.$2.0/24"]
remote_ts = ["172.16.$peer.0/24"]
start_action = "trap"
cleartext = "without-sa"
[secrets.hosts]
type = "psk"
secret = "0sdm0tc2VjcmV0LXZtLXNlY3JldA=="
END
}

ping_from() { on "$1" ping -c 3 -i 0.2 -W 5 -I "$2" "$3"; }
hosts() { ping_from left 192.0.2.1 192.0.2.2 && ping_from right 192.0.2.2 192.0.2.1; }
nets() { ping_from left 172.16.1.1 172.16.2.1 && ping_from right 172.16.2.1 172.16.1.1; }
knock() { on left timeout 3 bash -c '</dev/tcp/192.0.2.2/22'; }
capture() { on left tcpdump -Z root -n -i wire -U -w "$1.pcap" "${@:2}" 2>/dev/null & sleep 3; }
count() { sleep 2; tcpdump -n -r "$1.pcap" "${@:2}" 2>/dev/null | wc -l; }

wire
configure left 1
configure right 2
capture all
start left
check "policies say that packets can do without" within 120 sh -c 'ip netns exec left ip xfrm policy | grep -q "level use"'
check "hosts talk in clear, and the peer has no obol" hosts
check "networks too" nets
check "the strict child does not" not knock
check "packets have asked for an SA all the same" within 60 grep -F 'a packet asks for an SA connection=hosts child=pings' left.log
check "it is told when it is read" grep -F 'opportunistic, cleartext allowed' left.log
check "and in the status" sh -c "obol status --runtime-dir $work/left | grep -F 'in clear (opportunistic, cleartext allowed)'"
kill -KILL "$(pid)"
sleep 1
check "killed: the kernel's policies let them pass as before" hosts
check "the strict child does not" not knock
check "nothing of it was on the wire" [ "$(count all tcp)" = 0 ]
check "but pings in clear" [ "$(count all icmp)" -gt 0 ]
start left
start right
check "the peer gets obol: an SA comes up" within 240 sh -c "ping_once() { ip netns exec left ping -c 1 -W 2 192.0.2.2; }; ping_once; obol status --runtime-dir $work/left | grep -qE 'pings .*installed'"
check "and one of the networks" within 240 sh -c "ip netns exec left ping -c 1 -W 2 -I 172.16.1.1 172.16.2.1; obol status --runtime-dir $work/left | grep -qE 'nets .*installed'"
check "of which no packet passes in clear then" within 60 grep -F 'packets do not pass in clear any more' left.log
check "pings go on" hosts
check "also those of the networks" nets
sleep 2
capture sealed -Q out
check "pings go on by ESP" hosts
check "also those of the networks" nets
check "nothing is in clear" [ "$(count sealed icmp or tcp)" = 0 ]
check "ESP is" [ "$(count sealed esp)" -ge 12 ]
kill -KILL "$(pid right)"
sleep 1
obol_at right purge --config right.toml >/dev/null 2>&1
on right ip xfrm state flush
on right ip xfrm policy flush
received() { on left grep ^Icmp: /proc/net/snmp | tail -n 1 | cut -d ' ' -f 10; }
before=$(received)
on right ping -c 3 -i 0.2 -W 1 192.0.2.1 >/dev/null
check "opportunistic: what comes in clear beside the SA is taken" [ "$(received)" -ge "$((before + 3))" ]
before=$(received)
on right ping -c 3 -i 0.2 -W 1 -I 172.16.2.1 172.16.1.1 >/dev/null
check "without-sa: it is not" [ "$(received)" = "$before" ]
obol_at left down hosts >/dev/null 2>&1
check "without SA: hosts talk in clear again" within 120 hosts
check "networks too" within 120 nets
check "the strict child does not" not knock
grep -hE 'WARN|ERROR' left.log right.log | cut -c 1-200 | sort | uniq -c | sort -rn | head -n 8
clear_away
exit $failures
