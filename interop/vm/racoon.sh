#!/bin/bash
# The hosts of a MongoDB replica set with racoon's and setkey's files, as interop/racoon/story.sh has them, on the kernel's
# data plane.
#
#   interop/vm/run --script interop/vm/racoon.sh
PLANE=kernel exec interop/racoon/story.sh
