//! Lies about page states.

use super::Hostile;
use crate::machine::{
    machine::{BadChange, Machine},
    npt::Side,
};
use snp_model::{
    hostile::Lie,
    layout::Layout,
    psc::{Change, Operation},
    rmp::{LARGE_BYTES, Size},
};

impl Hostile {
    /// Answers a page-state change in place of the machine, if the lie is about that.
    pub fn change(&mut self, change: Change, ram: Layout) -> Option<Result<(), BadChange>> {
        let lie = self.lie?;
        let private = change.operation == Operation::Private;
        match lie {
            Lie::NoMemory if private => Some(Err(BadChange)),
            Lie::LittleMemory if private && ram.index(change.gpa) >= Some(ram.bytes() / 2) => {
                Some(Err(BadChange))
            }
            Lie::ShareRefused if !private => Some(Err(BadChange)),
            Lie::ShareForged if !private => Some(Ok(())),
            _ => {
                if !private {
                    self.shared.push(change.gpa..change.gpa + change.size.bytes());
                }
                None
            }
        }
    }

    /// Return code and carry flag of PVALIDATE, by which the guest validates or takes that back.
    pub fn validated(&self, validates: bool, code: u64, carry: bool) -> (u64, bool) {
        match self.lie {
            Some(Lie::Revalidated) if validates => (0, true),
            Some(Lie::Rescinded) if !validates => (0, true),
            Some(Lie::ValidationFails) => (1, true),
            _ => (code, carry),
        }
    }
}

impl Machine {
    /// After a page-state change was made.
    pub fn hostile_changed(&mut self, change: Change) {
        if self.hostile.tells(Lie::Split)
            && change.size == Size::Large
            && change.operation == Operation::Private
        {
            self.smash(change.gpa);
        }
    }

    /// After PVALIDATE validated a page.
    pub fn hostile_validated(&mut self, gpa: u64, size: Size) {
        if self.hostile.tells(Lie::StaleLines) && size == Size::Large {
            // A few pages of each large one, its last among them, stand for all.
            for page in [0, 0x1000, 0xF_F000, LARGE_BYTES - 0x1000] {
                self.npt.unmap(Side::Private, gpa + page, Size::Small, &mut self.pool);
                self.hostile.watch.stale(gpa + page);
            }
        }
    }

    /// Puts another, empty page at `gpa`.
    pub(super) fn replace(&mut self, gpa: u64) {
        self.smash(gpa);
        self.rmp.replace(gpa);
        self.npt.unmap(Side::Private, gpa, Size::Small, &mut self.pool);
        if let Some(page) = self.memory.private(gpa) {
            page.clear();
        }
    }
}
