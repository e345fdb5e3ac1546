#!/bin/sh
# heap PROGRAM...: runs a program with the guarded malloc(); without one, a program with a mistake.
[ $# -gt 0 ] || set -- buggy use-after-free
LD_PRELOAD=/examples/libheap.so exec "$@"
