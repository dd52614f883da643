#!/bin/sh
# Up to 10,000 pairs of SAs between two obols on the kernel's data plane. benches/xfrm --vm runs it, or:
#
#   interop/vm/run --script interop/vm/many.sh --with benches
exec python3 bin/benches/many --dataplane kernel --pairs "${PAIRS:-10000}" --obol /task/bin/obol
