//! QEMU under supervision, with firmware of a few instructions in place of an image. Needs `qemu-system-x86_64`.

use host_launcher::ending::Ending;
use host_launcher::machine::Arguments;
use host_launcher::supervise::{Happening, run};
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use wire::event::Event;
use wire::termination::Termination;

/// Firmware that sends `bytes` to the event port and then either ends QEMU with `exit` or stays.
fn firmware(bytes: &[u8], exit: Option<u8>) -> Vec<u8> {
    let mut rom = vec![0xf4; 64 << 10];
    let mut code = vec![0xbe, 0x00, 0x10]; //                  mov si, 0x1000
    code.push(0xb9); //                                        mov cx, length
    code.extend((bytes.len() as u16).to_le_bytes());
    code.extend([0xba, 0xe9, 0x00]); //                        mov dx, 0xe9
    code.extend([0x2e, 0xac]); //                        next: cs lodsb
    code.extend([0xee]); //                                    out dx, al
    code.extend([0xe2, 0xfb]); //                              loop next
    match exit {
        Some(value) => code.extend([0xb0, value, 0xe6, 0xf4]), // mov al, value; out 0xf4, al
        None => code.extend([0xeb, 0xfe]),                     //            stay: jmp stay
    }
    rom[..code.len()].copy_from_slice(&code);
    rom[0x1000..0x1000 + bytes.len()].copy_from_slice(bytes);
    rom[0xfff0..0xfff3].copy_from_slice(&[0xe9, 0x0d, 0x00]); // jmp 0
    rom
}

fn machine(folder: &Path, rom: &[u8]) -> Arguments {
    let file = folder.join("firmware.rom");
    fs::write(&file, rom).unwrap();
    let fixed = "-accel tcg -machine q35 -m 32M -nodefaults -display none -no-reboot \
                 -chardev stdio,id=events,signal=off -device isa-debugcon,iobase=0xe9,chardev=events \
                 -device isa-debug-exit,iobase=0xf4,iosize=4 -bios";
    let mut arguments: Vec<OsString> = fixed.split_whitespace().map(OsString::from).collect();
    arguments.push(file.into());
    Arguments(arguments)
}

/// Runs firmware to its end; with `stop_at`, asks for the end when that event arrives.
fn outcome(rom: &[u8], stop_at: Option<Event>) -> (Vec<Event>, Ending) {
    let folder = tempfile::tempdir().unwrap();
    let (sender, happenings) = mpsc::channel();
    let operator = sender.clone();
    let mut events = Vec::new();
    let ending = run(&machine(folder.path(), rom), &sender, &happenings, |happening| {
        if let Happening::Event(event) = happening {
            events.push(*event);
            if Some(*event) == stop_at {
                operator.send(Happening::Stop).unwrap();
            }
        }
    });
    (events, ending.unwrap())
}

#[test]
fn events_arrive_and_a_termination_is_explained() {
    let last = Event::Terminating { reason: Termination::Entropy, value: 7 };
    let bytes = [Event::Started {}.encode(), last.encode()].concat();
    let (events, ending) = outcome(&firmware(&bytes, Some(0x10)), None);
    assert_eq!(events, [Event::Started {}, last]);
    assert_eq!(ending, Ending::Terminated(Some((Termination::Entropy, 7))));
}

#[test]
fn a_guest_that_does_not_end_is_ended_on_request() {
    let listening = Event::Listening { port: 443 };
    let (events, ending) = outcome(&firmware(&listening.encode(), None), Some(listening));
    assert_eq!(events, [listening]);
    assert_eq!(ending, Ending::Stopped);
}

#[test]
fn a_violation_that_the_model_reports_is_one() {
    let (_, ending) = outcome(&firmware(&[], Some(0x11)), None);
    assert!(matches!(ending, Ending::Violation(_)), "{ending:?}");
}

#[test]
fn what_qemu_says_before_it_dies_is_passed_on() {
    let (sender, happenings) = mpsc::channel();
    let nonsense = Arguments(["-machine", "no-such-machine"].map(OsString::from).into());
    let ending = run(&nonsense, &sender, &happenings, |_| {}).unwrap();
    let Ending::QemuDied { status: Some(1), said } = &ending else { panic!("{ending:?}") };
    assert!(said.contains("unsupported machine type"), "{said}");
    assert_eq!(ending.exit_code(), 13);
}
