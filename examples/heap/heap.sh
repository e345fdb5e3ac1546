#!/bin/sh
# heap PROGRAM...: runs a program with the guarded malloc().
LD_PRELOAD=/examples/libheap.so exec "$@"
