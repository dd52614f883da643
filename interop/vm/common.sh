# What kernel.sh, features.sh and both.sh share: checks, two hosts as namespaces of the VM, and obol on them. To be sourced.
# Each check says "ok" or "FAIL".
failures=0
work=$(mktemp -d)
cd "$work" || exit 1
umask 077

check() { # check WHAT COMMAND...
    local what=$1
    shift
    if "$@" >out 2>&1; then echo "ok    $what"; else
        echo "FAIL  $what: $(tail -n 2 out)"
        failures=$((failures + 1))
    fi
}
not() { ! "$@"; }
within() { # within SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}
on() { ip netns exec "$@"; }

wire() { # the two hosts, their networks, and ways to the other's
    ip netns add left
    ip netns add right
    ip link add wire netns left type veth peer name wire netns right
    local n=1
    for host in left right; do
        on $host ip link set lo up
        on $host ip link set wire up
        on $host ip addr add 192.0.2.$n/24 dev wire
        on $host ip addr add fd09::$n/64 dev wire nodad
        on $host ip addr add 172.16.$n.1/32 dev lo
        on $host ip addr add fd0$n::1/128 dev lo nodad
        local peer=$((3 - n))
        on $host ip route add 172.16.$peer.0/24 via 192.0.2.$peer src 172.16.$n.1
        on $host ip -6 route add fd0$peer::/64 via fd09::$peer src fd0$n::1
        n=2
    done
}

start() { on "$1" obol run --config "$1.toml" --runtime-dir "$work/$1" >>"$1.log" 2>&1 & }
obol_at() { on "$1" obol "${@:2}" --runtime-dir "$work/$1"; }
pid() { cat "$work/${1:-left}/obol.pid"; }
ended() { ! [ -e "$1/obol.pid" ] || ! kill -0 "$(cat "$1/obol.pid")"; }

clear_away() {
    kill $(jobs -p) 2>/dev/null
    wait
    ip netns del left
    ip netns del right
    rm -rf left right ./*.log wire.pcap
}
