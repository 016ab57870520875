//! Inputs that several tests need; none needs all of them. The model file is that of the service's tests.
#![allow(dead_code)]

use attestation::manifest::{
    ChatTemplate, DeviceSlot, Limits, Machine, Manifest, ModelIdentity, Network, TaskPrompt,
};

/// A kernel with one segment of code, and one that is only zeros.
pub fn kernel(code: &[u8]) -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |file: &mut Vec<u8>, v: u16| file.extend(v.to_le_bytes());
    half(&mut file, 2);
    half(&mut file, 62);
    file.extend(1u32.to_le_bytes());
    for number in [0x20_0000u64, 64, 0] {
        file.extend(number.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for field in [64u16, 56, 2, 64, 0, 0] {
        half(&mut file, field);
    }
    let offset = 64 + 2 * 56;
    for (flags, offset, address, in_file, in_memory) in
        [(5u32, offset, 0x20_0000u64, code.len() as u64, code.len() as u64), (6, 0, 0x20_1000, 0, 0x2345)]
    {
        file.extend(1u32.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for number in [offset, address, address, in_file, in_memory, 4096] {
            file.extend(number.to_le_bytes());
        }
    }
    file.extend(code);
    file
}

/// A small but sound manifest.
pub fn manifest() -> Manifest {
    Manifest {
        image: "test".into(),
        version: "1".into(),
        model: ModelIdentity { name: "tiny".into(), weights_bytes: 9, weights_root: [7; 48] },
        template: ChatTemplate::from_turns(&[], [&[1], &[2], &[3]], &[4], vec![5]),
        tasks: vec![TaskPrompt { task: "chat".into(), instruction: vec![] }],
        limits: Limits {
            context_tokens: 64,
            output_tokens: 16,
            sessions: 1,
            connections: 1,
            request_bytes: 1024,
            idle_ms: 1000,
            pace_ms: 50,
            answer_records: 20,
        },
        machine: Machine {
            memory_mib: 1024,
            vcpus: 1,
            network: DeviceSlot { device: 4, bar: 0xC000_0000 },
            weights: DeviceSlot { device: 5, bar: 0xC010_0000 },
        },
        network: Network { address: [10, 0, 2, 15], prefix: 24, gateway: [10, 0, 2, 2], port: 443 },
    }
}
