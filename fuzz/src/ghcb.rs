//! A host that writes what it likes into the GHCB, and into its MSR.

use crate::bytes::Bytes;
use kernel::host::{Alleged, HostIo, OutOfBounds, SharedBytes, Width};
use kernel::snp::ghcb::{BYTES, CHANGES, Exit, Ghcb, PageChange, PageState};
use kernel::snp::protocol::{self, Msr};
use std::cell::RefCell;
use std::rc::Rc;

struct Page(Rc<RefCell<Vec<u8>>>);

impl SharedBytes for Page {
    fn gpa(&self) -> u64 {
        0x20_0000
    }

    fn size(&self) -> usize {
        BYTES
    }

    fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfBounds> {
        let page = self.0.borrow();
        out.copy_from_slice(page.get(offset..offset + out.len()).ok_or(OutOfBounds)?);
        Ok(())
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let mut page = self.0.borrow_mut();
        page.get_mut(offset..offset + bytes.len()).ok_or(OutOfBounds)?.copy_from_slice(bytes);
        Ok(())
    }
}

/// At each exit: how many writes of eight bytes, then where and what. The fields that every answer needs are set
/// first, so that most answers are taken seriously.
struct Host<'a> {
    page: Rc<RefCell<Vec<u8>>>,
    script: Rc<RefCell<Bytes<'a>>>,
    exits: Rc<RefCell<usize>>,
}

impl Exit for Host<'_> {
    fn exit(&mut self) {
        *self.exits.borrow_mut() += 1;
        let (mut page, mut script) = (self.page.borrow_mut(), self.script.borrow_mut());
        let honest = script.u8();
        if honest & 1 == 0 {
            for at in (0x398..0x3a8).chain([0x1f8 / 8, 0x398 / 8]) {
                page[at] = 0;
            }
            page[0x3f0..0x400].fill(0xff);
        }
        for _ in 0..honest >> 5 {
            let at = usize::from(script.u16()) % (BYTES - 8);
            page[at..at + 8].copy_from_slice(&script.u64().to_le_bytes());
        }
    }
}

/// Calls of every kind, one after the other.
pub fn page(data: &[u8]) {
    let page = Rc::new(RefCell::new(vec![0; BYTES]));
    let script = Rc::new(RefCell::new(Bytes(data)));
    let exits = Rc::new(RefCell::new(0));
    let host = Host { page: page.clone(), script: script.clone(), exits: exits.clone() };
    let mut ghcb = Ghcb::new(Page(page), host);
    for _ in 0..16 {
        let (kind, argument) = {
            let mut script = script.borrow_mut();
            if script.is_empty() {
                return;
            }
            (script.u8(), script.u32())
        };
        let width = [Width::Byte, Width::Word, Width::Long, Width::Quad][usize::from(kind >> 6)];
        let most = u64::MAX >> (64 - 8 * width.bytes());
        match kind & 7 {
            0 => {
                if let Ok(value) = ghcb.port_read(argument as u16, width) {
                    assert!(value.at_most(most as u32).is_some(), "wider than asked for");
                }
            }
            1 => {
                if let Ok(value) = ghcb.mmio_read(argument.into(), width) {
                    assert!(value.at_most(most).is_some(), "wider than asked for");
                }
            }
            2 => drop(ghcb.port_write(argument as u16, width, argument)),
            3 => drop(ghcb.mmio_write(argument.into(), width, argument.into())),
            4 => drop(ghcb.guest_request(0x1000, 0x2000)),
            5 => drop(ghcb.extended_guest_request(0x1000, 0x2000, 0x3000, 8)),
            _ => {
                let count = 1 + argument as usize % (2 * CHANGES);
                let changes: Vec<_> = (0..count as u64)
                    .map(|frame| PageChange { gpa: frame << 21, large: true, state: PageState::Private })
                    .collect();
                let before = *exits.borrow();
                let done = ghcb.change_pages(&changes);
                let exits = *exits.borrow() - before;
                assert!(exits <= count, "more calls than entries: the host keeps the guest busy");
                assert!(done.is_err() || exits >= count.div_ceil(CHANGES), "done without asking");
            }
        }
    }
}

/// One call of each kind.
pub fn page_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..8).map(|kind| vec![kind, 1, 0, 0, 0, 0]).collect();
    // A page-state change whose header says that it is done.
    let mut done = vec![6, 0, 0, 0, 0, 0b0010_0000];
    done.extend(0x800u16.to_le_bytes());
    done.extend(1u64.to_le_bytes());
    seeds.push(done);
    seeds
}

struct Script<'a>(Bytes<'a>);

impl Msr for Script<'_> {
    fn exchange(&mut self, _: u64) -> Alleged<u64> {
        Alleged::new(self.0.u64())
    }
}

/// The protocol's exchanges before the page exists.
pub fn msr(data: &[u8]) {
    const GPA: u64 = 0x20_3000;
    let last = |data: &[u8], at: usize| Bytes(data.get(at..).unwrap_or_default()).u64();
    if protocol::negotiate(&mut Script(Bytes(data))).is_ok() {
        assert_eq!(last(data, 0) >> 24 & 0xff, 51, "another C-bit");
        assert!(last(data, 8) >> 12 & 1 == 1, "no SNP");
    }
    if protocol::share_page(&mut Script(Bytes(data)), GPA).is_ok() {
        assert_eq!(last(data, 0) >> 32, 0, "an error code");
    }
    if protocol::register(&mut Script(Bytes(data)), GPA).is_ok() {
        assert_eq!(last(data, 0), GPA | 0x13, "another page");
    }
}

/// Honest answers.
pub fn msr_seeds() -> Vec<Vec<u8>> {
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    vec![words(&[2 << 48 | 1 << 32 | 51 << 24 | 1, 3 << 12 | 0x81]), words(&[0x15]), words(&[0x20_3013])]
}
