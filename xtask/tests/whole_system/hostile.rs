//! The production image under a hostile host, row by row of docs/SECURITY.md.
//!
//! What is promised under each lie stands in `xtask/src/hostile.rs`; `cargo xtask mutants` shows that each row's promise
//! is broken by an image without the row's defence.

use crate::fixture::Fixture;
use snp_model::hostile::Lie;
use xtask::build;
use xtask::hostile::{Attack, Promise, Site};

#[track_caller]
fn holds(attacks: impl IntoIterator<Item = Attack>) {
    let fixture = Fixture::get();
    let state = fixture.state();
    let site = Site { image: &fixture.folder, state: &state, client: build::program("cloister").unwrap() };
    for attack in attacks {
        let outcome = site.play(attack).unwrap();
        assert!(Promise::under(attack).is_kept(&outcome), "{attack:?}: {outcome:?}");
    }
}

/// Every lie of a row.
#[track_caller]
fn row_holds(row: &str) {
    let lies: Vec<Lie> =
        Lie::ALL.iter().copied().filter(|lie| lie.name().split('-').next() == Some(row)).collect();
    assert!(!lies.is_empty(), "no lie belongs to {row}");
    holds(lies.into_iter().map(Attack::Lie));
}

#[test]
fn a1_injected_vc_ends_the_vm() {
    row_holds("a1");
}

#[test]
fn a2_injected_interrupts_and_exceptions_end_the_vm() {
    row_holds("a2");
}

#[test]
fn a3_another_sev_status_is_refused() {
    row_holds("a3");
}

#[test]
fn a4_another_c_bit_is_refused() {
    row_holds("a4");
}

#[test]
fn a5_unchecked_cpuid_never_counts() {
    row_holds("a5");
}

#[test]
fn a6_remapped_page_ends_the_vm() {
    row_holds("a6");
}

#[test]
fn a7_nothing_is_written_to_a_page_before_it_is_shared() {
    row_holds("a7");
}

#[test]
fn a8_no_page_is_used_before_its_lines_are_touched() {
    row_holds("a8");
}

#[test]
fn a9_ghcb_answers_are_checked_and_read_once() {
    row_holds("a9");
}

#[test]
fn a10_missing_memory_ends_the_vm_cleanly() {
    row_holds("a10");
}

#[test]
fn a11_a_bad_guest_message_ends_the_vm() {
    row_holds("a11");
}

#[test]
fn a12_a_lying_device_is_not_used() {
    row_holds("a12");
}

#[test]
fn a13_a_lying_disk_stops_the_boot() {
    row_holds("a13");
}

#[test]
fn a14_a_clock_that_stops_jumps_or_runs_backwards_does_no_harm() {
    row_holds("a14");
}

#[test]
fn a15_bad_randomness_makes_no_key() {
    row_holds("a15");
}

#[test]
fn a16_every_vcpu_starts_once_from_its_own_vmsa() {
    row_holds("a16");
}

#[test]
fn a17_a_flood_of_connections_keeps_nobody_out() {
    holds([Attack::Flood]);
}

#[test]
fn a18_what_else_is_in_the_machine_is_never_looked_at() {
    row_holds("a18");
}

#[test]
fn a19_noise_in_shared_memory_does_no_harm() {
    row_holds("a19");
}

#[test]
fn a20_no_canary_is_left_in_guest_memory() {
    row_holds("a20");
}

#[test]
fn a21_a_guest_that_may_be_debugged_or_migrated_is_refused() {
    row_holds("a21");
}
