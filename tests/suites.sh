# suites.sh - what `./dev test` runs; sourced by it (build/ is a release already).
# Each suite is one command; the last line counts them.

passed=0 failed=0 failures=() findings=()

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

# What a fuzzer has found, and the input that shows it: `echo INPUT | base64 -d >file; fuzz_X file`.
finding() { # TARGET LOG
    local what
    what=$(grep -m 1 -E 'does not hold|runtime error|^SUMMARY' "$2") || what="ended with an error"
    findings+=("$1: ${what##*"$PWD"/}, input $(sed -n 's/^Base64: //p' "$2" | head -n 1)")
}

# With the same seed, and addresses that do not change, the inputs are the same each time (but of
# fuzz_control, which has threads), as far as the time goes. Seed 0 is another one each time.
fuzz() { # SECONDS SEED [TARGET...]
    local seconds=$1 seed=$2 source target targets=() status=0 fixed=(setarch -R)
    shift 2
    for source in tests/fuzz/fuzz_*.c; do targets+=("$(basename "$source" .c)"); done
    [ $# = 0 ] || targets=("$@")
    [ "$seed" != 0 ] && setarch -R true 2>/dev/null || fixed=()
    configure build-fuzz -DCMAKE_BUILD_TYPE=Release -DBAILEY_FUZZ=ON -DCMAKE_C_COMPILER=clang
    ninja -C build-fuzz "${targets[@]}" >build-fuzz.log || { tail -n 30 build-fuzz.log; return 1; }
    rm -f build-fuzz/fuzz_*.failed
    echo "fuzzing for $seconds s each, two at a time: ${targets[*]}"
    printf '%s\n' "${targets[@]}" | xargs -P 2 -I{} sh -c '"$@" >build-fuzz/{}.log 2>&1 || touch build-fuzz/{}.failed' fuzz \
        "${fixed[@]}" build-fuzz/tests/fuzz/{} -seed="$seed" -max_total_time="$seconds" -timeout=10 -max_len=4096 \
        -len_control=0 -print_final_stats=1 -artifact_prefix=build-fuzz/ || status=1
    for target in "${targets[@]}"; do
        echo "$target: $(sed -n 's/.*number_of_executed_units: *//p' "build-fuzz/$target.log") inputs"
        [ ! -e "build-fuzz/$target.failed" ] ||
            { tail -n 40 "build-fuzz/$target.log"; finding "$target" "build-fuzz/$target.log"; status=1; }
    done
    return $status
}

print_findings() {
    [ ${#findings[@]} = 0 ] || printf 'found by %s\n' "${findings[@]}"
}

run_fuzzers() { # [SECONDS [TARGET...]]
    local seconds=${1:-300} target status=0
    [ $# = 0 ] || shift
    [[ $seconds =~ ^[0-9]+$ ]] || die "fuzz: $seconds is not a number of seconds"
    for target in "$@"; do [ -e "tests/fuzz/$target.c" ] || die "fuzz: no target $target in tests/fuzz"; done
    fuzz "$seconds" 0 "$@" || status=1
    print_findings
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
        suite "fuzzers" fuzz 30 1
    fi
    printf '\n'
    print_findings
    [ $failed = 0 ] || printf 'failed: %s\n' "${failures[@]}"
    printf '%d passed, %d failed\n' "$passed" "$failed"
    [ $failed = 0 ]
}
