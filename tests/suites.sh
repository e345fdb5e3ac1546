# suites.sh - what `./dev test` runs; sourced by it (build/ is a release already).
# Each suite is one command; the last line counts them.

passed=0 failed=0 failures=()

suite() { # NAME COMMAND...
    local name=$1 start=$SECONDS
    shift
    say "$name"
    if "$@"; then
        passed=$((passed + 1))
        printf 'ok   %s (%d s)\n' "$name" $((SECONDS - start))
    else
        failed=$((failed + 1))
        failures+=("$name")
        printf 'FAIL %s (%d s)\n' "$name" $((SECONDS - start))
    fi
}

run_ctest() { (cd "$1" && shift && ctest --output-on-failure -j2 "$@"); }

sanitizer_build() { # DIR SANITIZERS COMPILER TARGETS...
    local dir=$1 kind=$2 compiler=$3
    shift 3
    configure "$dir" -DCMAKE_BUILD_TYPE=Release -DBAILEY_SANITIZE="$kind" -DCMAKE_C_COMPILER="$compiler"
    ninja -C "$dir" "$@" >"$dir.log" || { tail -n 30 "$dir.log"; return 1; }
}

asan_ubsan() {
    sanitizer_build build-asan address,undefined gcc &&
        ASAN_OPTIONS=detect_leaks=1 run_ctest build-asan -L quick
}

tsan() {
    local units file
    units=$(for file in tests/unit/{mmu,control}/test_*.c tests/unit/block/test_{blockdev,parallel}.c; do
        file=${file#tests/unit/}
        echo "unit_${file%%/*}_$(basename "$file" .c)"
    done)
    # shellcheck disable=SC2086 # a list of targets
    sanitizer_build build-tsan thread gcc bailey guests $units &&
        TSAN_OPTIONS=halt_on_error=1 run_ctest build-tsan -L quick -R 'guest/64/(smp|protect|protect_smp|protect_attacks)$|unit/mmu|unit/control|unit/block/test_(blockdev|parallel)'
}

fuzz() { # SECONDS
    local source target targets=() status=0
    for source in tests/fuzz/fuzz_*.c; do targets+=("$(basename "$source" .c)"); done
    configure build-fuzz -DCMAKE_BUILD_TYPE=Release -DBAILEY_FUZZ=ON -DCMAKE_C_COMPILER=clang
    ninja -C build-fuzz "${targets[@]}" >build-fuzz.log || { tail -n 30 build-fuzz.log; return 1; }
    for target in "${targets[@]}"; do
        echo "fuzzing $target for $1 s"
        "build-fuzz/tests/fuzz/$target" -max_total_time="$1" -timeout=10 -max_len=4096 -len_control=0 -print_final_stats=1 \
            -artifact_prefix=build-fuzz/ >build-fuzz.log 2>&1 || { tail -n 40 build-fuzz.log; status=1; }
        grep number_of_executed_units build-fuzz.log || true
    done
    return $status
}

run_suites() { # [--quick]
    local quick=
    [ "${1:-}" = --quick ] && quick=1
    suite "quick tests" run_ctest build -L quick
    if [ -z "$quick" ]; then
        test_guests
        suite "long tests" run_ctest build -L full
        suite "boots of real guests" run_ctest build -L boot
        suite "address and undefined-behaviour sanitizers" asan_ubsan
        suite "thread sanitizer" tsan
        suite "fuzzers" fuzz 30
    fi
    printf '\n'
    [ $failed = 0 ] || printf 'failed: %s\n' "${failures[@]}"
    printf '%d passed, %d failed\n' "$passed" "$failed"
    [ $failed = 0 ]
}
