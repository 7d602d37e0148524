#!/bin/sh
# The versions of a lock without its hashes, one a line: what pip and uv take as constraints.
sed -n 's/^\([A-Za-z0-9._-]*==[^ ;\\]*\).*/\1/p' "$1"
