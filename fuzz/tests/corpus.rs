//! Every target over its kept corpus, its seeds, and mutations of both: the same ones in every run.

use fuzz::{TARGETS, Target};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Mutations of each target, and how long they may take at most on a slow machine.
const MUTATIONS: u32 = 30_000;
const LONGEST: Duration = Duration::from_secs(8);
const LONGEST_INPUT: usize = 8192;

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let entries = fs::read_dir(&folder).map(|entries| entries.map(|entry| entry.unwrap().path()));
    let mut files: Vec<PathBuf> = entries.into_iter().flatten().collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).chain((target.seeds)()).collect()
}

/// xorshift64* (Vigna, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// One to eight changes of the kinds that fuzzers make.
    fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut data = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(8) {
            let at = self.below(data.len() + 1);
            match self.below(7) {
                0 if at < data.len() => data[at] ^= 1 << self.below(8),
                1 if at < data.len() => data[at] = self.next() as u8,
                2 if at < data.len() => data[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                3 => data.truncate(at),
                4 => {
                    let other = &corpus[self.below(corpus.len())];
                    data.truncate(at);
                    data.extend_from_slice(&other[self.below(other.len() + 1)..]);
                }
                5 if at < data.len() => {
                    data.drain(at..(at + 1 + self.below(8)).min(data.len()));
                }
                _ => {
                    let bytes = self.next().to_le_bytes();
                    data.splice(at..at, bytes[..=self.below(8)].iter().copied());
                }
            }
        }
        data.truncate(LONGEST_INPUT);
        data
    }
}

fn holds(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let corpus = corpus(target);
    let run = |data: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(data))) {
            let file = std::env::temp_dir().join(format!("fuzz-{name}"));
            let _ = fs::write(&file, data);
            eprintln!("{name}: the input is in {}", file.display());
            std::panic::resume_unwind(panic);
        }
    };
    corpus.iter().for_each(|data| run(data));
    let mut random = Random(0x2026_1120);
    let start = Instant::now();
    let mut done = 0;
    while done < MUTATIONS && start.elapsed() < LONGEST {
        run(&random.mutate(&corpus));
        done += 1;
    }
    println!("{name}: {} kept inputs and seeds, {done} mutations", corpus.len());
}

macro_rules! targets {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            holds(stringify!($name));
        })*

        #[test]
        fn no_target_is_left_out() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

targets!(
    ghcb,
    ghcb_msr,
    guest_message,
    cpuid_page,
    manifest,
    certificate_table,
    weights,
    model,
    pci_config,
    virtio_block,
    virtio_network,
    tokenizer,
    template,
    evidence,
    certificate,
    log_entry,
    log_proof,
    bhttp,
    ohttp_keys,
    ohttp_exchange,
    token
);
