//! Stack canaries: that they are in the image, drawn at boot, and end the VM.

use crate::fixture::Fixture;
use std::time::Duration;
use wire::termination::Termination;
use xtask::build;
use xtask::guest::Guest;

/// `mov reg, fs:[0x28]`, but for the register.
fn loads_canary(code: &[u8]) -> bool {
    matches!(code, [0x64, 0x48 | 0x4c, 0x8b, register, 0x25, 0x28, 0, 0, 0, ..] if register & 0xc7 == 4)
}

/// In a copy of the image, functions take what lies beside the canary for it when they are entered, and compare with the canary
/// when they return. Both are 0 until the canary is drawn, so the guest comes as far as that.
#[test]
fn a_function_that_finds_another_canary_ends_the_vm() {
    let fixture = Fixture::get();
    let mut rom = std::fs::read(fixture.rom()).unwrap();
    let (mut entered, mut compared) = (0, 0);
    for at in 0..rom.len() - 16 {
        if loads_canary(&rom[at..]) {
            // `cmp reg, [stack]` follows where a function returns.
            if rom[at + 10] == 0x3b {
                compared += 1;
            } else {
                entered += 1;
                rom[at + 5] = 0x20;
            }
        }
    }
    assert!(
        entered > 300 && compared >= entered,
        "{entered} functions with a canary, {compared} comparisons"
    );

    let image = fixture.folder.join("other-canary.rom");
    std::fs::write(&image, &rom).unwrap();
    let weights = build::weights();
    let mut guest = Guest::start(&fixture.start_image(&image, &weights, &fixture.state(), &[])).unwrap();
    guest.wait(Duration::from_secs(240)).unwrap();
    let output = guest.output();
    assert!(output.contains("the random number generator is ready"), "{output}");
    assert!(output.contains(Termination::StackCorrupt.explain()), "{output}");
}
