//! Time and randomness, of which the guest has no source but the host's processor.

use super::Hostile;
use crate::machine::{cpu, machine::Machine, vcpu::Vcpu};
use snp_model::{hostile::Lie, launch::offset};

impl Hostile {
    /// Whether readings of the time-stamp counter are the lie's to answer.
    pub(super) fn owns_time(&self) -> bool {
        matches!(
            self.lie,
            Some(
                Lie::TimeStops
                    | Lie::TimeJumps
                    | Lie::TimeBackwards
                    | Lie::Silent
                    | Lie::ResetInFlight
                    | Lie::NeverStarted
                    | Lie::LaunchVmsa
            )
        )
    }
}

impl Machine {
    /// RDTSC; whether it was answered.
    pub(super) fn time_stamp(&mut self, vcpu: &mut Vcpu) -> bool {
        const RDTSC_BYTES: u8 = 2;
        /// Three years at 2 GHz.
        const YEARS: u64 = 3 * 365 * 86_400 * 2_000_000_000;
        /// Five seconds at 2 GHz.
        const SECONDS: u64 = 5 * 2_000_000_000;
        let now = cpu::timestamp();
        self.hostile.count += 1;
        let count = self.hostile.count;
        let answer = match self.hostile.lie {
            Some(Lie::TimeStops) if self.hostile.listening => 1 << 40,
            // A frame that came answers one of before the leap, so that the guest takes the years for a round trip. Each leap
            // is longer than the one before, so whatever is left of it in a smaller counter is another number.
            Some(Lie::TimeJumps) => {
                let frames = self.frames_received();
                if core::mem::replace(&mut self.hostile.frames, frames) != frames || count == 1000 {
                    self.hostile.leaps += 1;
                }
                let leaps = self.hostile.leaps;
                now.wrapping_add((leaps * leaps).wrapping_mul(YEARS))
            }
            Some(Lie::TimeBackwards) => (1u64 << 62).wrapping_sub(now),
            // The clock must not make the guest give up its CPUs first, which start before the disk is asked.
            Some(Lie::Silent | Lie::ResetInFlight) if !self.hostile.disk_was_asked => now,
            Some(Lie::Silent | Lie::ResetInFlight | Lie::NeverStarted | Lie::LaunchVmsa) => {
                now.wrapping_add(count * SECONDS)
            }
            _ => now,
        };
        vcpu.set_edx_eax(answer);
        vcpu.skip(RDTSC_BYTES);
        true
    }

    /// RDRAND or RDSEED, which QEMU was told not to have; whether it was one of them.
    pub(super) fn random_number(&mut self, vcpu: &mut Vcpu) -> bool {
        const CARRY: u64 = 1;
        /// OF, SF, ZF, AF, PF and CF, which both instructions clear before they set CF (APM volume 3).
        const FLAGS: u64 = 1 << 11 | 1 << 7 | 1 << 6 | 1 << 4 | 1 << 2 | CARRY;
        let mut bytes = [0; 5];
        let (length, _) = self.read_some(vcpu, vcpu.linear_rip(), &mut bytes);
        let (rex, at) = match bytes[0] {
            prefix @ 0x40..=0x4F if vcpu.runs_64_bit_code() => (prefix, 1),
            _ => (0, 0),
        };
        let [0x0F, 0xC7, modrm] = bytes[at..at + 3] else { return false };
        if length < at + 3 || modrm < 0xC0 || !matches!(modrm >> 3 & 7, 6 | 7) {
            return false;
        }
        self.hostile.count += 1;
        let value = match self.hostile.lie {
            Some(Lie::RandomStuck) => Some(0x1234_5678_9ABC_DEF0),
            Some(Lie::RandomCycle) => Some(self.hostile.count % 5),
            _ => None,
        };
        vcpu.set_register(modrm & 7 | (rex & 1) << 3, value.unwrap_or(0));
        let flags = vcpu.vmcb.state::<u64>(offset::RFLAGS) & !FLAGS;
        vcpu.vmcb.set_state(offset::RFLAGS, flags | if value.is_some() { CARRY } else { 0 });
        vcpu.skip(at as u8 + 3);
        true
    }
}
