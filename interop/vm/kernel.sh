#!/bin/bash
# Two obols in namespaces of the VM, the left one on the kernel's data plane, under faults that no peer has a part in;
# and what `auto` makes of a kernel without ESP. Says "ok" or "FAIL" for each; exits with the number of failures.
#
#   interop/vm/run --script interop/vm/kernel.sh
#   interop/vm/kernel.sh auto|story     in the VM: the one or the other
set -u
. interop/vm/common.sh

SERVER='
import shutil, socket, sys
with socket.create_server(("", 27017)) as listener:
    shutil.copyfileobj(listener.accept()[0].makefile("rb"), sys.stdout.buffer)
'

configure() { # configure HOST NUMBER DATAPLANE LINES-OF-THE-FIRST-CHILD
    local peer=$((3 - $2))
    cat >"$1.toml" <<END
[daemon]
dataplane = "$3"
[connections.hosts]
local_addrs = ["192.0.2.$2"]
remote_addrs = ["192.0.2.$peer"]
local = { auth = "psk", id = "@host$2" }
remote = { auth = "psk", id = "@host$peer" }
[connections.hosts.children.net]
local_ts = ["172.16.$2.0/24"]
remote_ts = ["172.16.$peer.0/24"]
start_action = "start"
$4
[connections.hosts.children.six]
local_ts = ["fd0$2::/64"]
remote_ts = ["fd0$peer::/64"]
start_action = "start"
[connections.hosts.children.server]
mode = "transport"
local_ts = ["192.0.2.$2[tcp/27017]"]
remote_ts = ["192.0.2.$peer[tcp]"]
start_action = "trap"
[connections.hosts.children.client]
mode = "transport"
local_ts = ["192.0.2.$2[tcp]"]
remote_ts = ["192.0.2.$peer[tcp/27017]"]
start_action = "trap"
[secrets.hosts]
type = "psk"
secret = "0sdm0tc2VjcmV0LXZtLXNlY3JldA=="
END
}

is_up() { [ "$(obol_at left status | grep -cE '(net|six) .*installed')" -ge 2 ]; }
policies() { on left ip xfrm policy | grep -c 'dir '; }
all_policies() { [ "$(policies)" = "$whole" ]; }
lossless() { grep -q ' 0% packet loss' "$1"; }
nothing_in_clear() { # but errors of ICMP about IKE, while nobody listens
    tcpdump -n -r wire.pcap 'icmp[0] == 0 or icmp[0] == 8 or icmp6[0] == 128 or icmp6[0] == 129 or tcp' 2>/dev/null | tee clear
    [ ! -s clear ] && tcpdump -n -r wire.pcap -c 1 esp 2>/dev/null | grep -q ESP
}

story() { # story DATAPLANE-OF-THE-RIGHT
    echo "-- kernel to $1"
    wire
    configure left 1 kernel $'rekey_time = "5s"\nlife_time = "20s"'
    configure right 2 "$1" ''
    # What leaves: the kernel shows what came in once more, opened.
    on left tcpdump -Z root -n -Q out -i wire -U -w wire.pcap 2>/dev/null &
    start left
    start right
    check "up" within 120 is_up
    check "IPv4 in the tunnel" on left ping -c 3 -i 0.2 -W 5 172.16.2.1
    check "IPv6 in the tunnel" on left ping -c 3 -i 0.2 -W 5 fd02::1
    on left ping -i 0.02 -c 1000 -W 5 172.16.2.1 >rekeys
    check "20 s of pings over rekeys: $(tail -n 2 rekeys | head -n 1)" lossless rekeys
    check "there were rekeys" grep -q 'rekey=true' left.log
    on right timeout 100 python3 -c "$SERVER" >received &
    check "the server listens" within 20 sh -c "ip netns exec right ss -Hltn sport = 27017 | grep -q ."
    on left timeout 30 bash -c 'head -c 100000 /dev/zero >/dev/tcp/192.0.2.2/27017'
    check "TCP 27017 in transport mode, by its first packet" within 10 sh -c "[ \$(stat -c %s received) = 100000 ]"

    whole=$(policies)
    on left ip xfrm state flush
    check "states flushed by hand: there again" within 20 on left ping -c 1 -W 1 172.16.2.1
    on left ip xfrm policy flush
    check "policies flushed by hand: there again" within 5 all_policies
    check "the exposure is in the log" grep -q 'somebody removed IPsec policies' left.log
    kill -STOP "$(pid)"
    on left ip xfrm policy flush
    on left ping -c 3 -i 0.2 -W 1 172.16.2.1 >/dev/null
    kill -CONT "$(pid)"
    check "flushed while obol slept: there again" within 10 all_policies
    check "and packets pass" within 20 on left ping -c 1 -W 1 172.16.2.1
    on left nft -f - <<'END'
table ip other { chain post { type nat hook postrouting priority srcnat; oifname "wire" ip saddr 172.16.1.0/24 masquerade; }; }
END
    check "MASQUERADE of others: the source address stays" on left ping -c 3 -i 0.2 -W 5 172.16.2.1

    on left ping -i 0.05 -c 300 -W 5 172.16.2.1 >kill &
    local ping=$!
    sleep 2
    kill -KILL "$(pid)"
    sleep 2
    check "killed: the SAs go on" on left ping -c 3 -i 0.2 -W 5 172.16.2.1
    start left
    wait $ping
    check "up after SIGKILL: $(tail -n 2 kill | head -n 1)" within 60 is_up
    check "old states go" within 60 sh -c "[ \$(ip netns exec left ip xfrm state | grep -c 'mode tunnel') -le 6 ]"
    obol_at left down --all >/dev/null
    check "nothing is left" within 10 sh -c "! ip netns exec left ip xfrm policy | grep -q 'dir '"
    check "nothing of ours was in clear" nothing_in_clear
    grep -hE 'WARN|ERROR' left.log right.log | cut -c 1-200 | sort | uniq -c | sort -rn | head -n 5
    clear_away
}

LACKS='this kernel has no ESP: `modprobe esp4`'

says() { # says HOST WORDS: in its status and in its log
    obol_at "$1" status | grep -F "$2" && grep -F "${2#* data plane (}" "$1.log"
}

auto() { # before anything else has loaded the modules
    echo "-- auto"
    printf 'install esp4 /bin/false\ninstall esp6 /bin/false\n' >/etc/modprobe.d/no-esp.conf
    wire
    configure left 1 kernel ''
    check "kernel, where there is no ESP: an error" sh -c '! timeout 60 ip netns exec left obol run --config left.toml --runtime-dir "$PWD/no" >no.log 2>&1'
    check "it names the module" grep -qF "$LACKS" no.log
    check "nothing is left of it" sh -c "! ip netns exec left ip xfrm policy | grep -q 'dir '"
    configure left 1 auto ''
    configure right 2 userspace ''
    start left
    start right
    check "auto, where there is no ESP: up" within 120 is_up
    check "in user space, say status and log" says left "userspace data plane (auto: the kernel cannot: $LACKS"
    check "packets pass" on left ping -c 3 -i 0.2 -W 5 172.16.2.1
    kill "$(pid)"
    within 20 ended left
    rm /etc/modprobe.d/no-esp.conf
    start left
    check "auto, where there is ESP: up" within 120 is_up
    check "in the kernel, say status and log" says left 'kernel data plane (auto: the kernel takes what is configured'
    check "packets pass" on left ping -c 3 -i 0.2 -W 5 172.16.2.1
    check "by the kernel's SAs" sh -c "ip netns exec left ip xfrm state | grep -q 'proto esp'"
    clear_away
}

case ${1-all} in
auto) auto ;;
story)
    story kernel
    story userspace
    ;;
all)
    auto
    story kernel
    story userspace
    ;;
esac
echo "$failures failures"
exit "$failures"
