//! The GHCB against a host that is honest or lies in one way.

use super::*;
use std::cell::RefCell;
use std::rc::Rc;

const GPA: u64 = 0x20_4000;

#[derive(Clone)]
struct Page(Rc<RefCell<[u8; BYTES]>>);

impl Page {
    fn long(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0.borrow()[at..at + 8].try_into().unwrap())
    }

    fn put(&self, at: usize, value: u64) {
        self.0.borrow_mut()[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn mark(&self, offsets: &[usize]) {
        let valid = offsets.iter().fold(0u128, |valid, offset| valid | bit(*offset));
        self.0.borrow_mut()[VALID..VALID + 16].copy_from_slice(&valid.to_le_bytes());
    }

    fn marked(&self, offset: usize) -> bool {
        let valid: [u8; 16] = self.0.borrow()[VALID..VALID + 16].try_into().unwrap();
        u128::from_le_bytes(valid) & bit(offset) != 0
    }

    fn answer(&self, info_1: u64, info_2: u64) {
        self.put(EXIT_INFO_1, info_1);
        self.put(EXIT_INFO_2, info_2);
        self.mark(&[EXIT_INFO_1, EXIT_INFO_2]);
    }
}

impl SharedBytes for Page {
    fn gpa(&self) -> u64 {
        GPA
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

impl<F: FnMut(&Page)> Exit for (Page, F) {
    fn exit(&mut self) {
        (self.1)(&self.0);
    }
}

fn ghcb<F: FnMut(&Page)>(host: F) -> Ghcb<Page, (Page, F)> {
    let page = Page(Rc::new(RefCell::new([0; BYTES])));
    Ghcb::new(page.clone(), (page, host))
}

#[test]
fn a_port_write_carries_its_fields() {
    let mut seen = None;
    let mut ghcb = ghcb(|page: &Page| {
        assert!(page.marked(RAX) && page.marked(EXIT_CODE) && !page.marked(SCRATCH) && !page.marked(RBX));
        seen = Some((page.long(EXIT_CODE), page.long(EXIT_INFO_1), page.long(RAX)));
        page.answer(0, 0);
    });
    ghcb.port_write(0xe9, Width::Byte, 0x1c1).unwrap();
    drop(ghcb);
    assert_eq!(seen, Some((0x7b, 0xe9 << 16 | 1 << 7 | 1 << 4, 0xc1)));
}

#[test]
fn bytes_for_a_port_go_in_one_call_through_the_buffer() {
    let mut ghcb = ghcb(|page| {
        assert_eq!(page.long(EXIT_CODE), 0x7b);
        // APM vol. 2, §15.10.2: port, 16-bit addresses, bytes, string with repeat prefix, out.
        assert_eq!((page.long(EXIT_INFO_1), page.long(EXIT_INFO_2)), (0xe9 << 16 | 0b1001_1100, 3));
        assert_eq!((page.long(SCRATCH), page.long(BUFFER) & 0xff_ffff), (GPA + BUFFER as u64, 0x03_02_01));
        assert!(page.marked(SCRATCH) && !page.marked(RAX));
        page.answer(0, 0);
    });
    ghcb.port_write_all(0xe9, &[1, 2, 3]).unwrap();
    assert_eq!(ghcb.port_write_all(0xe9, &[0; BUFFER_BYTES + 1]), Err(HostFault));
}

#[test]
fn a_port_read_takes_only_the_width_that_was_asked_for() {
    let mut ghcb = ghcb(|page: &Page| {
        page.answer(0, 0);
        page.put(RAX, u64::MAX);
        page.mark(&[EXIT_INFO_1, EXIT_INFO_2, RAX]);
    });
    assert!(ghcb.port_read(0xcfc, Width::Word).unwrap().is(0xffff));
}

#[test]
fn a9_a_field_that_is_not_marked_valid_is_not_read() {
    let unmarked_rax = |page: &Page| page.answer(0, 0);
    assert_eq!(ghcb(unmarked_rax).port_read(0xcfc, Width::Long).err(), Some(HostFault));
    for missing in [EXIT_INFO_1, EXIT_INFO_2] {
        let other = EXIT_INFO_1 + EXIT_INFO_2 - missing;
        let mut ghcb = ghcb(move |page: &Page| page.mark(&[other]));
        assert_eq!(ghcb.port_write(0xe9, Width::Byte, 0), Err(HostFault));
    }
}

#[test]
fn a9_an_error_or_an_exception_to_raise_is_a_fault() {
    for info_1 in [1, 2, 0x8000_0000] {
        let mut ghcb = ghcb(move |page: &Page| page.answer(info_1, 0x8000_030d));
        assert_eq!(ghcb.mmio_write(0xc000_0000, Width::Long, 1), Err(HostFault));
    }
}

#[test]
fn device_memory_goes_through_the_buffer() {
    let mut host = ghcb(|page: &Page| {
        assert_eq!((page.long(SCRATCH), page.long(EXIT_INFO_2)), (GPA + 0x800, 2));
        assert_eq!(page.long(EXIT_INFO_1), 0xc000_0010);
        page.put(BUFFER, 0x1111_2222_3333_4444);
        page.answer(0, 0);
    });
    assert!(host.mmio_read(0xc000_0010, Width::Word).unwrap().is(0x4444));
}

fn changes(count: u64) -> Vec<PageChange> {
    (0..count).map(|i| PageChange { gpa: i << 21, large: true, state: PageState::Private }).collect()
}

#[test]
fn page_changes_are_batched_and_resumed() {
    let mut taken = Vec::new();
    let mut host = ghcb(|page: &Page| {
        let header = page.long(BUFFER);
        let (from, last) = (header & 0xffff, header >> 16 & 0xffff);
        let to = (from + 100).min(last + 1);
        (from..to).for_each(|i| taken.push(page.long(BUFFER + 8 + 8 * i as usize)));
        page.put(BUFFER, to | last << 16);
        page.answer(0, 0);
    });
    host.change_pages(&changes(600)).unwrap();
    drop(host);
    assert_eq!(taken, (0..600).map(|i| i << 21 | 1 << 52 | 1 << 56).collect::<Vec<u64>>());
}

#[test]
fn a9_a_page_change_that_stalls_or_is_rewritten_ends_the_vm() {
    let lies: [fn(&Page); 6] = [
        |page| page.answer(0, 0),
        |page| (page.put(BUFFER, 3 | 8 << 16), page.answer(0, 0)).1,
        |page| (page.put(BUFFER, 11 | 9 << 16), page.answer(0, 0)).1,
        |page| (page.put(BUFFER, 10 | 9 << 16 | 1 << 32), page.answer(0, 0)).1,
        |page| (page.put(BUFFER, 10 | 9 << 16), page.answer(0, 1 << 32)).1,
        |page| page.answer(2, 5),
    ];
    for lie in lies {
        let error = ghcb(lie).change_pages(&changes(10)).unwrap_err();
        assert_eq!(error.reason, Termination::GhcbProtocol);
    }
}

#[test]
fn an_extended_request_names_its_pages() {
    let mut host = ghcb(|page: &Page| {
        assert_eq!(page.long(EXIT_CODE), 0x8000_0012);
        let fields = [EXIT_INFO_1, EXIT_INFO_2, RAX, RBX].map(|field| page.long(field));
        assert_eq!(fields, [0x1000, 0x2000, 0x3000, 8]);
        page.answer(0, 1 << 32);
    });
    assert_eq!(
        host.extended_guest_request(0x1000, 0x2000, 0x3000, 8),
        Ok(GuestRequestStatus::INVALID_LENGTH)
    );
}

#[test]
fn a16_a_cpu_is_created_from_the_guests_vmsa() {
    let mut seen = None;
    let mut ghcb = ghcb(|page: &Page| {
        assert!(page.marked(RAX));
        seen = Some([EXIT_CODE, EXIT_INFO_1, EXIT_INFO_2, RAX].map(|at| page.long(at)));
        page.answer(0, 0);
    });
    ghcb.create_cpu(3, 0x20_1000, 1).unwrap();
    drop(ghcb);
    assert_eq!(seen, Some([AP_CREATION, 3 << 32 | 1, 0x20_1000, 1]));
}

#[test]
fn a16_a_refusal_to_create_a_cpu_is_seen() {
    // GHCB §4.1, table 7: malformed input.
    assert_eq!(ghcb(|page: &Page| page.answer(2, 5)).create_cpu(1, 0x20_1000, 1), Err(HostFault));
}

#[test]
fn a_cpu_is_woken_by_kvms_hypercall() {
    let mut seen = None;
    let mut ghcb = ghcb(|page: &Page| {
        assert!([RAX, RBX, RCX, CPL & !7].iter().all(|at| page.marked(*at)));
        seen = Some([EXIT_CODE, RAX, RBX, RCX, CPL & !7].map(|at| page.long(at)));
        page.answer(0, 0);
    });
    ghcb.wake_cpu(7).unwrap();
    drop(ghcb);
    assert_eq!(seen, Some([VMMCALL, 5, 0, 7, 0]));
}
