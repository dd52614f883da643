#!/bin/bash
# obol on the kernel's data plane beside others that use the kernel's IPsec, and what only this data plane does: xfrm
# interfaces, marks, devices that seal. Says "ok" or "FAIL" for each; exits with the number of failures.
#
#   interop/vm/run --script interop/vm/features.sh
set -u
. interop/vm/common.sh

policy() { ip xfrm policy "$@"; }
told() { grep -F "$1" log | grep -qF "$2"; }
protects() { policy | grep -A 1 -F 'src 172.16.1.0/24 dst 172.16.2.0/24' | grep -q 'dir out priority'; }

others() { # without a peer
    cat >config.toml <<'END'
[daemon]
dataplane = "kernel"
[connections.hosts]
local_addrs = ["127.0.0.1"]
remote_addrs = ["127.0.0.2"]
local = { auth = "psk", id = "@left" }
remote = { auth = "psk", id = "@right" }
[connections.hosts.children.net]
local_ts = ["172.16.1.0/24"]
remote_ts = ["172.16.2.0/24"]
start_action = "trap"
[secrets.hosts]
type = "psk"
secret = "0sdm0tc2VjcmV0LXZtLXNlY3JldA=="
END
    echo "-- policies of others"
    ip link set lo up
    policy add src 172.16.1.0/24 dst 172.16.2.0/24 dir out if_id 7 action block
    policy add src 172.16.0.0/16 dst 172.16.0.0/16 dir out priority 2000000000 action block
    obol run --config config.toml --runtime-dir "$work/run" >>log 2>&1 &
    check "one that only an xfrm interface meets is not in the way" within 120 protects
    check "one that was there and comes later is told" within 60 told 172.16.0.0/16 'whose policies come first'
    policy add src 172.16.1.7/32 dst 172.16.2.7/32 dir out priority 1
    check "one that is added and lets packets pass in clear is told" within 60 told 172.16.1.7/32 'passes in clear'
    policy add src 172.16.8.0/24 dst 172.16.9.0/24 dir out priority 1
    sleep 1
    check "one about other packets is not" not grep -q 172.16.8.0 log
    check "nor the one of the interface" sh -c '[ "$(grep -c "another program" log)" = 2 ]'
    kill $!
    wait
    obol purge --config config.toml >>log 2>&1
    check "theirs are all there, and nothing of ours" sh -c '[ "$(ip xfrm policy | grep -c "dir ")" = 4 ]'
    grep -hE 'WARN|ERROR' log | cut -c 1-300
    policy flush
}

configure() { # configure HOST NUMBER CHILD-LINES
    local peer=$((3 - $2))
    cat >"$1.toml" <<END
[daemon]
dataplane = "kernel"
[connections.hosts]
local_addrs = ["192.0.2.$2"]
remote_addrs = ["192.0.2.$peer"]
local = { auth = "psk", id = "@host$2" }
remote = { auth = "psk", id = "@host$peer" }
[connections.hosts.children.net]
start_action = "trap"
$3
[secrets.hosts]
type = "psk"
secret = "0sdm0tc2VjcmV0LXZtLXNlY3JldA=="
END
}

has() { on "$1" ip -d link show "$2" | grep -F "$3"; }
gone() { not on "$1" ip link show "$2"; }
installed() { obol_at left status | grep -qE 'net .*installed'; }
renewed() { ping_right 1 && installed; }
ping_right() { on left ping -c 3 -i 0.2 -W "${1:-5}" "${@:2}" 172.16.2.1; }
captured() { tcpdump -n -r wire.pcap "$@" 2>/dev/null | tee seen; }
sealed() { captured -c 1 esp; [ -s seen ]; }
# What was captured is in the file a moment later.
nothing_in_clear() {
    within 20 sealed || return 1
    sleep 1
    captured 'net 172.16.0.0/16 and not esp'
    [ ! -s seen ]
}
capture() { on left tcpdump -Z root -n -Q out -i wire -U -w wire.pcap 2>/dev/null & }
lead_into() { within 60 on "$1" ip route replace "172.16.$2.0/24" dev ipsec1 src "172.16.$((3 - $2)).1"; }

interfaces() {
    echo "-- xfrm interfaces"
    wire
    local all=$'local_ts = ["0.0.0.0/0", "::/0"]\nremote_ts = ["0.0.0.0/0", "::/0"]'
    configure left 1 "$all"$'\nif_id = 42\ninterface = "ipsec1"'
    configure right 2 "$all"$'\nif_id = 7\ninterface = "ipsec1"'
    capture
    start left
    check "it is made, with its number and obol's alias" within 60 has left ipsec1 'if_id 0x2a'
    check "and is up" within 60 has left ipsec1 ',UP'
    has left ipsec1 alias
    lead_into left 2
    ping_right 1 >/dev/null
    check "what is not led into it passes, whatever the selectors say" on left ping -c 1 -W 5 192.0.2.2
    start right
    check "the peer has one too" lead_into right 1
    check "what is led into it brings the SA up" within 120 ping_right 1
    check "by states of the interface" sh -c 'ip netns exec left ip xfrm state | grep "if_id 0x2a"'
    check "and goes on" ping_right
    on left ip link delete ipsec1
    check "removed by hand: made again" within 120 has left ipsec1 'if_id 0x2a'
    lead_into left 2
    check "and packets pass" within 120 ping_right 1
    kill -KILL "$(pid)"
    sleep 1
    check "killed: interface and SA go on" ping_right
    start left
    # Packets pass by the SA of before, for half a minute, and then ask.
    check "the next one goes on with it" within 120 renewed
    check "and packets pass" within 120 ping_right 1
    check "it was not made twice" sh -c 'ip netns exec left ip link show type xfrm | grep -c ipsec1 | grep -qx 1'
    on left ip xfrm state flush
    on left ip xfrm policy flush
    ping_right 1 >/dev/null
    check "after a flush of all packets pass again" within 120 ping_right 1
    sed -i 's/if_id = 42/if_id = 43/' left.toml
    obol_at left reload >/dev/null
    check "another number: the interface is another one" has left ipsec1 'if_id 0x2b'
    lead_into left 2
    check "and so are the SAs: packets pass" within 120 ping_right 1
    obol_at left down --all >/dev/null
    check "it goes at the end" within 60 gone left ipsec1
    check "nothing was in clear" nothing_in_clear
    within 60 ended left

    echo "-- xfrm interfaces of others"
    on left ip link add ipsec1 type xfrm if_id 43
    on left ip link set ipsec1 up
    start left
    check "one that is there is used" within 60 sh -c 'ip netns exec left ip xfrm policy | grep -q "if_id 0x2b"'
    lead_into left 2
    check "and packets pass" within 120 ping_right 1
    obol_at left down --all >/dev/null
    within 60 ended left
    check "and stays" has left ipsec1 'if_id 0x2b'
    on left ip link delete ipsec1
    on left ip link add ipsec1 type dummy
    start left
    check "no xfrm interface under that name: an error" within 120 grep -F 'there is a device ipsec1 already' left.log
    on left ip link delete ipsec1
    on left ip link add ipsec9 type xfrm if_id 43
    start left
    check "its number under another name: an error" within 120 grep -F 'another xfrm interface has if_id 43' left.log
    check "which leaves nothing" not sh -c "ip netns exec left ip xfrm policy | grep 'dir '"
    grep -hE 'WARN|ERROR' left.log right.log | cut -c 1-200 | sort | uniq -c | sort -rn | head -n 8
    clear_away
}

marks() {
    echo "-- marks"
    wire
    local left=$'local_ts = ["172.16.1.0/24"]\nremote_ts = ["172.16.2.0/24"]'
    configure left 1 "$left"$'\nmark_out = "0x10/0xf0"\nmark_in = "0x20/0xf0"'
    configure right 2 $'local_ts = ["172.16.2.0/24"]\nremote_ts = ["172.16.1.0/24"]'
    on left nft -f - <<'END'
table ip seen { chain in { type filter hook input priority 0; ip saddr 172.16.2.1 meta mark & 0xf0 == 0x20 counter; }; }
END
    start left
    start right
    check "the policies have it" within 60 sh -c 'ip netns exec left ip xfrm policy | grep "mark 0x10/0xf0"'
    capture
    sleep 1
    ping_right 1 -m 16 >/dev/null
    check "packets with the mark bring the SA up" within 120 ping_right 1 -m 16
    check "any that has the bits" ping_right 5 -m 31
    check "what comes in has its mark" sh -c 'ip netns exec left nft list table ip seen | grep -E "packets [1-9]"'
    kill -STOP "$(pid)"
    on left ip xfrm policy flush
    ping_right 1 -m 16 >/dev/null
    check "policies flushed while obol sleeps: nothing was in clear" nothing_in_clear
    kill -CONT "$(pid)"
    check "and packets pass again" within 120 ping_right 1 -m 16
    check "nothing was in clear" nothing_in_clear
    ping_right 1 >/dev/null
    check "without the mark packets are none of its" not nothing_in_clear
    obol_at left down --all >/dev/null
    check "nothing is left" within 60 not sh -c "ip netns exec left ip xfrm policy | grep 'dir '"
    grep -hE 'WARN|ERROR' left.log right.log | cut -c 1-200 | sort | uniq -c | sort -rn | head -n 8
    clear_away
}

offload() { # no device here can do it
    echo "-- devices that seal and open"
    wire
    local left=$'local_ts = ["172.16.1.0/24"]\nremote_ts = ["172.16.2.0/24"]'
    configure left 1 "$left"$'\nhw_offload = "crypto"'
    configure right 2 $'local_ts = ["172.16.2.0/24"]\nremote_ts = ["172.16.1.0/24"]'
    capture
    start left
    start right
    check "up to the first packet" within 60 sh -c 'ip netns exec left ip xfrm policy | grep "dir out"'
    ping_right 1 >/dev/null
    check "a device that must and cannot: an error that names it" within 120 grep -F 'the device wire does not take it' left.log
    check "and no SA" not installed
    sed -i 's/"crypto"/"auto"/' left.toml
    obol_at left reload >/dev/null
    check "one that may: packets pass" within 120 ping_right 1
    check "nothing was in clear" nothing_in_clear
    obol_at left down --all >/dev/null
    grep -hE 'WARN|ERROR' left.log right.log | cut -c 1-300 | sort | uniq -c | sort -rn | head -n 4
    clear_away
}

others
interfaces
marks
offload
echo "$failures failures"
exit "$failures"
