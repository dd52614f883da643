#!/bin/bash
# One obol in a namespace of the VM with a peer on each of its data planes: rekeys under pings, ESP in UDP and without on
# both, SIGKILL, and reloads that open the second data plane and move a connection from one to the other. Says "ok" or
# "FAIL" for each; exits with the number of failures.
#
#   interop/vm/run --script interop/vm/both.sh
set -u
. interop/vm/common.sh

lossless() { grep -q ' 0% packet loss' "$1"; }
pings() { on mid ping -c 3 -i 0.2 -W 5 "172.16.$1.1"; }
in_background() { on mid ping -i 0.02 -c "$3" -W 5 "172.16.$1.1" >"$2" & }
up() { # up PLANE CONNECTION: its child is up, and that carries it
    obol_at mid status --json | python3 -c '
import json, sys
sas = [sa for sa in json.load(sys.stdin)["ike_sas"] if sa["name"] == sys.argv[2]]
children = [child for sa in sas for child in sa["children"] if child["state"] == "installed"]
sys.exit(not any(child["data_plane"] == sys.argv[1] for child in children))' "$1" "$2"
}
nothing_in_clear() { # nothing_in_clear FILE: a capture of what both ends sent
    [ -s "$1" ] && ! tcpdump -n -r "$1" 'icmp[0] == 0 or icmp[0] == 8' 2>/dev/null | grep -q .
}

wires() { # mid, and a peer at each of its wires
    ip netns add mid
    on mid ip link set lo up
    on mid ip addr add 172.16.1.1/32 dev lo
    for n in 2 3; do
        ip netns add peer$n
        ip link add wire$n netns mid type veth peer name wire netns peer$n
        on mid ip link set wire$n up
        on mid ip addr add 192.0.$n.1/24 dev wire$n
        on mid ip route add 172.16.$n.0/24 via 192.0.$n.2 src 172.16.1.1
        on peer$n ip link set lo up
        on peer$n ip link set wire up
        on peer$n ip addr add 192.0.$n.2/24 dev wire
        on peer$n ip addr add 172.16.$n.1/32 dev lo
        on peer$n ip route add 172.16.1.0/24 via 192.0.$n.1 src 172.16.$n.1
        on mid tcpdump -Z root -n -Q out -i wire$n -U -w mid$n.pcap 2>/dev/null &
        on peer$n tcpdump -Z root -n -Q out -i wire -U -w peer$n.pcap 2>/dev/null &
    done
}

connection() { # connection NUMBER OWN PEER LINES-OF-THE-CONNECTION LINES-OF-THE-CHILD
    local ends=(0 1 2)
    [ "$2" = 1 ] || ends=(0 2 1)
    local own=${ends[1]} other=${ends[2]} nets=(0 1 "$1")
    cat <<END
[connections.to$1]
local_addrs = ["192.0.$1.$own"]
remote_addrs = ["192.0.$1.$other"]
local = { auth = "psk", id = "@$2" }
remote = { auth = "psk", id = "@$3" }
$4
[connections.to$1.children.net]
local_ts = ["172.16.${nets[$own]}.0/24"]
remote_ts = ["172.16.${nets[$other]}.0/24"]
start_action = "start"
$5
END
}
SECRET='[secrets.all]
type = "psk"
secret = "0sdm0tc2VjcmV0LXZtLXNlY3JldA=="'
mid() { # mid LINES-OF-2 LINES-OF-3: the configuration of the one in the middle
    {
        connection 2 1 2 "$1" $'rekey_time = "4s"\nlife_time = "30s"'
        [ -z "${2-}" ] || connection 3 1 3 "$2" $'rekey_time = "4s"\nlife_time = "30s"'
        echo "$SECRET"
    } >mid.toml
}
peer() { { connection "$1" "$1" 1 "$2" ''; echo "$SECRET"; } >"peer$1.toml"; }

kernel='dataplane = "kernel"'
ours='dataplane = "userspace"'
udp=$'\nencap = true'

wires
for n in 2 3; do
    peer $n ''
    start peer$n
done

echo "-- the second data plane joins by a reload; ESP in UDP on both"
mid "$kernel$udp"
start mid
check "up in the kernel" within 60 up kernel to2
in_background 2 joined 300
sleep 1
mid "$kernel$udp" "$ours$udp"
check "reload" obol_at mid reload
check "up in user space" within 60 up userspace to3
wait $!
check "pings through the kernel meanwhile: $(tail -n 2 joined | head -n 1)" lossless joined
check "status says both" sh -c "ip netns exec mid obol status --runtime-dir '$work/mid' | grep -F 'both data planes' && ip netns exec mid obol status --runtime-dir '$work/mid' | grep -E 'to3/net .* userspace'"
check "list says why" sh -c "ip netns exec mid obol list --runtime-dir '$work/mid' | grep -E 'dataplane +kernel +configured'"
in_background 2 kernel 400
first=$!
in_background 3 userspace 400
wait $first $!
check "rekeys in the kernel, in UDP: $(tail -n 2 kernel | head -n 1)" lossless kernel
check "rekeys in user space, in UDP: $(tail -n 2 userspace | head -n 1)" lossless userspace
check "each was rekeyed" sh -c 'for c in to2 to3; do grep "Child SA up" mid.log | grep $c | grep -q "rekey=true" || exit 1; done'
check "the wires have ESP in UDP alone" sh -c '! tcpdump -n -r mid2.pcap esp 2>/dev/null | grep -q . && ! tcpdump -n -r mid3.pcap esp 2>/dev/null | grep -q .'

echo "-- ESP without UDP on both"
mid "$kernel" "$ours"
check "reload" obol_at mid reload
plain() { tcpdump -n -c 1 -r "$1" "ip proto 50" 2>/dev/null | grep -q . || { pings "${1//[!0-9]/}"; false; }; }
check "the kernel sends it" within 60 plain mid2.pcap
check "and so do we" within 60 plain mid3.pcap
in_background 2 kernel 400
first=$!
in_background 3 userspace 400
wait $first $!
check "rekeys in the kernel: $(tail -n 2 kernel | head -n 1)" lossless kernel
check "rekeys in user space: $(tail -n 2 userspace | head -n 1)" lossless userspace
check "no SPI of the kernel is unknown" sh -c "! ip netns exec mid obol status --json --runtime-dir '$work/mid' | grep -E '\"unknown-spi\": [1-9]'"

echo "-- SIGKILL"
kill -KILL "$(pid mid)"
sleep 0.5
check "the kernel goes on" pings 2
check "what was ours stands still" sh -c '! ip netns exec mid ping -c 2 -i 0.2 -W 1 172.16.3.1'
start mid
check "up in the kernel" within 60 up kernel to2
check "up in user space" within 60 up userspace to3
check "pings through the kernel" pings 2
check "pings through user space" within 20 pings 3

echo "-- from one data plane to the other and back, under pings"
for turn in "$ours|$kernel|userspace|kernel" "$kernel|$ours|kernel|userspace"; do
    IFS='|' read -r two three by2 by3 <<<"$turn"
    in_background 2 two 250
    first=$!
    in_background 3 three 250
    second=$!
    sleep 1
    mid "$two" "$three"
    check "reload" obol_at mid reload
    check "to2 by $by2" within 60 up "$by2" to2
    check "to3 by $by3" within 60 up "$by3" to3
    wait $first $second
    echo "      lost meanwhile: $(grep -ho '[0-9.]*% packet loss' two three | tr '\n' ' ')"
    check "pings" pings 2
    check "and to the other" pings 3
done

obol_at mid down --all >/dev/null
check "nothing is left of policies" within 10 sh -c "! ip netns exec mid ip xfrm policy | grep -q 'dir '"
check "nor of rules and guards" sh -c "! ip netns exec mid ip rule | grep -q 26250 && ! ip netns exec mid nft list tables | grep -q obol"
sleep 0.5
for capture in mid2 mid3 peer2 peer3; do
    check "nothing in clear: $capture" nothing_in_clear $capture.pcap
done
grep -hE 'WARN|ERROR' mid.log | cut -c 1-200 | sort | uniq -c | sort -rn | head -n 5
[ $failures = 0 ] || tail -n 40 mid.log
kill $(jobs -p) 2>/dev/null
echo "$failures failures"
exit "$failures"
