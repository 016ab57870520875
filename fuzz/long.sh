#!/bin/sh
# Usage: fuzz/long.sh SECONDS [guest | TARGET...]    runs targets side by side under libFuzzer
#        fuzz/long.sh --merge [guest | TARGET...]    brings what they found and adds coverage into the kept corpus
set -eu
here=$(cd "$(dirname "$0")" && pwd)
what=$1; shift
# All targets, or those of the guest alone, whose programs take no C library to build.
guest="ghcb ghcb_msr guest_message cpuid_page manifest certificate_table weights model pci_config virtio_block
    virtio_network tokenizer"
outside="template evidence certificate log_entry log_proof bhttp ohttp_keys ohttp_exchange token"
features=
case ${1:-all} in
    guest) features=--no-default-features; set -- $guest ;;
    all) set -- $guest $outside ;;
esac
out=${CARGO_TARGET_DIR:-$here/../target}/fuzz
# The coverage that libFuzzer goes by. These are compiler passes, not features of a nightly compiler.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
cargo build --release --manifest-path "$here/libfuzzer/Cargo.toml" --target-dir "$out/build" \
    --target x86_64-unknown-linux-gnu $features
bin=$out/build/x86_64-unknown-linux-gnu/release
for target in "$@"; do
    mkdir -p "$out/$target" "$here/corpus/$target"
    if [ "$what" = --merge ]; then
        "$bin/$target" -merge=1 -max_len=8192 "$here/corpus/$target" "$out/$target"
    else
        "$bin/$target" -max_total_time="$what" -max_len=8192 -timeout=60 -print_final_stats=1 \
            -artifact_prefix="$out/$target-" "$out/$target" "$here/corpus/$target" > "$out/$target.log" 2>&1 &
    fi
done
wait
[ "$what" = --merge ] || for target in "$@"; do
    log=$out/$target.log
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(sed -n 's/.* cov: \([0-9]*\) ft: \([0-9]*\).*/\1 | \2/p' "$log" | tail -1)
    crashes=$(find "$out" -maxdepth 1 -name "$target-crash-*" -o -maxdepth 1 -name "$target-timeout-*" | wc -l)
    echo "| $target | ${runs:-0} | ${coverage:- | } | $crashes |"
done
