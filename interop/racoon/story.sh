#!/bin/bash
# The hosts of a MongoDB replica set, with the files of racoon and setkey as they stand there: three hosts in two subnets of a
# VPC, whose security group lets UDP 500 and ESP pass and nothing else. On each a mongod (or the test double beside this, where
# the machine has none), and clients that write to and read from all of them at once. Then a silent host, one without obol,
# and a daemon that is killed. Prints a report with "ok" or "FAIL" for each check; exits with the number of failures.
#
#   PLANE=userspace|kernel interop/racoon/story.sh     as root, with obol, tcpdump, iptables and python3-pymongo
set -u
[ -n "${IN_OWN_MOUNTS-}" ] || IN_OWN_MOUNTS=1 exec unshare --mount "$0" "$@"
here=$(cd "$(dirname "$0")" && pwd)
PLANE=${PLANE:-userspace}
PYTHON=/usr/bin/python3
for program in obol tcpdump iptables openssl unshare; do
    command -v $program >/dev/null || { echo "story.sh: no $program on the PATH" >&2; exit 1; }
done
$PYTHON -c 'import pymongo' 2>/dev/null || { echo "story.sh: apt-get install python3-pymongo" >&2; exit 1; }
. "$here/../vm/common.sh"
umask 022

HOSTS=(10.0.1.13 10.0.1.241 10.0.2.7)
STRANGER=10.0.1.77 # has no obol
SILENT=10.0.1.99   # is nobody
CANARY="nobody on the wire may read this"
name() { echo "mongo$$-${1##*.}"; } # of a host's namespace
vpc=mongo$$-vpc

# at HOST COMMAND...: as on the host itself, which has an /etc and a /run of its own
at() {
    local host=$1
    shift
    on "$(name "$host")" sh -c 'mount --bind "$0/etc" /etc && mount --bind "$0/run" /run && exec "$@"' "$work/$host" "$@"
}
has() { [ -s "$1" ] && grep -q "$2" "$1"; }
clean_up() {
    local space
    for space in $vpc $(for host in "${HOSTS[@]}" $STRANGER; do name "$host"; done); do
        kill $(ip netns pids "$space" 2>/dev/null) 2>/dev/null
        ip netns del "$space" 2>/dev/null
    done
    wait
    cd / && rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 143' TERM INT

# The VPC's router hands over each packet between two hosts, those of one subnet too, and there is its security group.
network() {
    ip netns add "$vpc"
    on "$vpc" sysctl -qw net.ipv4.ip_forward=1
    local host wire
    for host in "${HOSTS[@]}" $STRANGER; do
        wire=to-${host##*.}
        ip netns add "$(name "$host")"
        ip link add eth0 netns "$(name "$host")" type veth peer name "$wire" netns "$vpc"
        on "$(name "$host")" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
        on "$vpc" sysctl -qw "net.ipv6.conf.$wire.disable_ipv6=1" "net.ipv4.conf.$wire.proxy_arp=1" \
            "net.ipv4.conf.$wire.send_redirects=0" "net.ipv4.neigh.$wire.proxy_delay=0"
        on "$vpc" ip link set "$wire" up
        on "$vpc" ip route add "$host/32" dev "$wire"
        on "$(name "$host")" ip link set lo up
        on "$(name "$host")" ip link set eth0 up
        on "$(name "$host")" ip addr add "$host/24" dev eth0
        on "$(name "$host")" ip route add default via "${host%.*}.1"
        mkdir -p "$work/$host/run"
        cp -a /etc "$work/$host/etc"
    done
    on "$vpc" ip route add "$SILENT/32" dev "to-${STRANGER##*.}"
    on "$vpc" ip addr add 10.0.1.1/32 dev lo
    on "$vpc" ip addr add 10.0.2.1/32 dev lo
    on "$vpc" iptables -N security_group
    on "$vpc" iptables -A security_group -p udp --dport 4500 # counts what there must be none of
    on "$vpc" iptables -A security_group -p udp --dport 500 -j ACCEPT
    on "$vpc" iptables -A security_group -p esp -j ACCEPT
    on "$vpc" iptables -A FORWARD -j security_group
    on "$vpc" iptables -P FORWARD DROP
    for host in "${HOSTS[@]}"; do
        on "$vpc" tcpdump -Z root -n -s 0 -U -i "to-${host##*.}" -w "$work/${host}.pcap" 2>/dev/null &
    done
    # What a host says to itself is in clear, and so shows what there would be to read.
    on "$(name "${HOSTS[0]}")" tcpdump -Z root -n -s 0 -U -i lo -w "$work/itself.pcap" 2>/dev/null &
    for host in "${HOSTS[@]}" itself; do within 10 [ -s "$host.pcap" ]; done
}

# The files of the story, the same on all instances. One has a file of obol's own beside them: to give up sooner.
files() {
    echo "* " "$(openssl rand -base64 48)" >psk.txt
    for host in "${HOSTS[@]}"; do
        mkdir -p "$work/$host/etc/racoon" "$work/$host/etc/ipsec-tools.d" "$work/$host/etc/obol"
        install -m 0400 psk.txt "$work/$host/etc/racoon/psk.txt"
        install -m 0644 "$here/racoon.conf" "$work/$host/etc/racoon/racoon.conf"
        install -m 0644 "$here/mongodb.conf" "$work/$host/etc/ipsec-tools.d/mongodb.conf"
        [ "$PLANE" = userspace ] || printf '[daemon]\ndataplane = "%s"\n' "$PLANE" >"$work/$host/etc/obol/obol.toml"
    done
    printf '[daemon]\ndataplane = "%s"\nretransmit_tries = 5\n' "$PLANE" >"$work/${HOSTS[2]}/etc/obol/obol.toml"
}

load() { # load HOST: the policies, and nothing runs
    as_racoon "$1" setkey --service restart | tee "$1.setkey" | grep -q 'done'
}
start() { # start HOST: the daemon
    at "$1" "$work/bin/racoon" -F -f /etc/racoon/racoon.conf >>"$work/$1.log" 2>&1 &
    within 60 grep -q ' ready' "$work/$1.log"
}
server() { # server HOST
    if command -v mongod >/dev/null; then
        mkdir -p "$work/$1/db"
        at "$1" mongod --bind_ip_all --port 27017 --dbpath "$work/$1/db" >>"$work/$1.mongod" 2>&1 &
    else
        at "$1" $PYTHON "$here/mongod.py" >>"$work/$1.mongod" 2>&1 &
    fi
    within 30 at "$1" $PYTHON -c 'import socket; socket.create_connection(("127.0.0.1", 27017), 1)'
}
client() { # client HOST SERVERS...: writes and reads
    at "$1" $PYTHON "$here/client.py" "$1" "$(IFS=,; echo "${HOSTS[*]}")" "${@:2}"
}
connects() { # connects FROM TO SECONDS
    at "$1" $PYTHON -c 'import socket, sys; socket.create_connection((sys.argv[1], 27017), float(sys.argv[2]))' "$2" "$3"
}
all_at_once() { # all write and read, each everywhere; the first packets go both ways at once
    local host pids=() failed=0
    for host in "${HOSTS[@]}"; do
        client "$host" "${HOSTS[@]}" >"$host.client" 2>&1 &
        pids+=($!)
    done
    for host in "${pids[@]}"; do wait "$host" || failed=1; done
    cat "${HOSTS[@]/%/.client}" | sed 's/^/      /' >client.report
    return $failed
}
peers() { # peers HOST: with whom it has an IKE SA, once for each
    at "$1" obol status --json | $PYTHON -c 'import json, sys
print(*sorted(sa["remote"]["addr"] for sa in json.load(sys.stdin)["ike_sas"] if sa["state"] == "established"))'
}
has_met() { # has_met HOST: both others, each once
    [ "$(peers "$1")" = "$(printf '%s\n' "${HOSTS[@]}" | grep -vxF "$1" | sort | xargs)" ]
}

# What went over the wire of a host in the direction that the filter says, but for address resolution, IKE and ESP.
other_than_esp() { tcpdump -n -r "$1.pcap" "not arp and not (udp src port 500 and udp dst port 500) and not ip proto 50 ${2-}" 2>/dev/null; }
only_esp() { # only_esp HOST [FILTER]
    [ "$(tcpdump -n -r "$1.pcap" 'ip proto 50' 2>/dev/null | wc -l)" -gt 20 ] && [ -z "$(other_than_esp "$@")" ] || { other_than_esp "$@" | head -n 3; false; }
}
readable() { grep -qaF "$CANARY" "$1.pcap"; }
nothing_readable() { ! readable "$1"; }
count() { tcpdump -n -r "$1.pcap" "$2" 2>/dev/null | wc -l; } # count HOST FILTER
proof() { # what was on each wire: where TCP 27017 is in clear, it came from the host without obol
    printf '      %-12s %8s %8s %8s   %s\n' 'WIRE OF' IKE ESP ICMP 'TCP 27017 IN CLEAR: SENT, CAME, CAME FROM OTHERS THAN '"$STRANGER"
    local host clear='tcp port 27017'
    for host in "${HOSTS[@]}"; do
        printf '      %-12s %8s %8s %8s   %s, %s, %s\n' "$host" "$(count "$host" 'udp port 500')" "$(count "$host" esp)" "$(count "$host" icmp)" \
            "$(count "$host" "src host $host and $clear")" "$(count "$host" "dst host $host and $clear")" \
            "$(count "$host" "dst host $host and not src host $STRANGER and $clear")"
    done
}
none_in_clear() { # none_in_clear HOST: sent by it, or come from who has obol
    [ "$(count "$1" "tcp port 27017 and not src host $STRANGER")" = 0 ]
}
nothing_to_4500() { on "$vpc" iptables -nvxL security_group | grep 'dpt:4500' | grep -q '^ *0 '; }
seen() { tcpdump -n -r "$1.pcap" "$2" 2>/dev/null | grep -q .; } # seen HOST FILTER
shown() { sed 's/^/      /'; }
as_racoon() { # as_racoon HOST WORDS...: a command of the story's, by its name
    at "$1" "$work/bin/$2" "${@:3}" 2>&1
}
drops() { at "$1" obol status | grep -q '^ *clear-in'; }
story_says() { # story_says HOST: its commands, and what they say
    local line
    for line in "racoonctl show-sa isakmp" "racoonctl show-sa ipsec" "setkey -D" "setkey -DP"; do
        echo "      # $line"
        as_racoon "$1" $line | shown
    done
}
is_listed() { # is_listed HOST: each peer once, four SAs in each direction or more, the policies
    local peer
    for peer in "${HOSTS[@]}"; do
        [ "$peer" = "$1" ] || [ "$(as_racoon "$1" racoonctl show-sa isakmp | grep -c "^$peer.500 ")" = 1 ] || return 1
    done
    [ "$(as_racoon "$1" setkey -D | grep -c 'esp mode=transport')" -ge 8 ] &&
        [ "$(as_racoon "$1" setkey -DP | grep -c 'esp/transport//require')" -ge 4 ]
}

mkdir bin
for command in racoon racoonctl setkey; do ln -s "$(command -v obol)" bin/$command; done
echo "== three hosts with the story's files, $PLANE"
network
files
"$work/bin/setkey" -V 2>&1 | head -n 1 | sed 's/^/      /'
for host in "${HOSTS[@]}"; do
    check "setkey loads the policies on $host" load "$host"
    check "racoon is ready on $host" start "$host"
    check "mongod listens on $host" server "$host"
done
command -v mongod >/dev/null || echo "      no mongod on this machine: a test double that speaks MongoDB's wire protocol"
check "all nodes move together, the log says first" sh -c "grep -m 1 WARN '${HOSTS[0]}.log' | grep -q 'all nodes move together'"
check "there is no SA yet" [ "$(as_racoon "${HOSTS[0]}" racoonctl show-sa ipsec)" = "No SAD entries." ]

echo "-- all write and read everywhere, and all begin at once"
check "documents of all on all" all_at_once
cat client.report
for host in "${HOSTS[@]}"; do
    check "one IKE SA with each of the others on $host" within 20 has_met "$host"
done
sleep 1
for host in "${HOSTS[@]}"; do
    check "the wire of $host has IKE on port 500 and ESP, and nothing else" only_esp "$host"
    check "nobody can read it" nothing_readable "$host"
done
check "where ${HOSTS[0]} talks to itself, everybody could read it" readable itself
check "nothing went to port 4500" nothing_to_4500
echo "      tcpdump esp on ${HOSTS[0]}:"
tcpdump -n -vv -r "${HOSTS[0]}.pcap" esp 2>/dev/null | head -n 4 | shown
for host in "${HOSTS[@]}"; do
    check "racoonctl and setkey on $host list SAs and policies" within 10 is_listed "$host"
done
story_says "${HOSTS[0]}"
echo "      # obol status"
at "${HOSTS[0]}" obol status 2>&1 | shown

echo "-- a silent host"
host=${HOSTS[0]}
check "nobody answers" not connects "$host" $SILENT 2
sleep 0.5
check "it was asked by IKE" seen "$host" "dst host $SILENT and udp port 500"
check "and got nothing else" not seen "$host" "dst host $SILENT and not udp port 500 and not arp"

echo "-- a host without obol, to which the security group is open"
host=${HOSTS[2]}
on "$vpc" iptables -I FORWARD -s $STRANGER -j ACCEPT
on "$vpc" iptables -I FORWARD -d $STRANGER -j ACCEPT
server $STRANGER
check "it cannot connect" not connects $STRANGER "$host" 3
check "nor can anybody connect to it" not connects "$host" $STRANGER 3
sleep 0.5
check "its packets came" seen "$host" "src host $STRANGER and tcp dst port 27017"
check "and got no answer, nor anything in clear" not seen "$host" "dst host $STRANGER and not udp port 500 and not arp"
check "the log says why" within 60 grep -q "$STRANGER:500 did not answer" "$host.log"
grep "$STRANGER:500 did not answer" "$host.log" | tail -n 1 | shown
check "what was dropped is counted" within 5 drops "$host"
at "$host" obol status | sed -n '/DROPPED/,$p' | sed 's/^/    /'

echo "-- a daemon is killed" # its kernel then says of ESP and UDP that nobody takes it, and quotes that
kill -KILL "$(cat "$work/${HOSTS[1]}/run/obol/obol.pid")"
sleep 0.2
if [ "$PLANE" = kernel ]; then
    check "its SAs go on in the kernel" connects "${HOSTS[0]}" "${HOSTS[1]}" 10
    check "in both directions" connects "${HOSTS[1]}" "${HOSTS[2]}" 10
else
    check "nobody connects to its host" not connects "${HOSTS[0]}" "${HOSTS[1]}" 2
    check "nor its host to anybody" not connects "${HOSTS[1]}" "${HOSTS[2]}" 2
fi
check "it talks to itself" connects "${HOSTS[1]}" "${HOSTS[1]}" 2
: >"${HOSTS[1]}.log"
check "it is started again" start "${HOSTS[1]}"
check "documents of all on all" all_at_once
cat client.report

sleep 1
for host in "${HOSTS[@]}"; do
    check "$host has sent nothing but IKE and ESP, to the end" only_esp "$host" "and src host $host and not (icmp[0] = 3 and (icmp[17] = 50 or icmp[17] = 17))"
    check "and nobody can read it" nothing_readable "$host"
    check "no TCP 27017 is in clear, but for what the host without obol has sent" none_in_clear "$host"
done
check "nothing went to port 4500" nothing_to_4500
proof
[ $failures = 0 ] || for host in "${HOSTS[@]}"; do echo "-- $host"; tail -n 15 "$host.log"; done
echo "$failures failures"
exit "$failures"
