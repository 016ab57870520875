//! The measured manifest: everything that changes the guest's behaviour and is not code.
//!
//! The image builder puts the encoded manifest into the image, so the launch digest covers it. The guest reads
//! nothing else: no command line, no `fw_cfg`, no ACPI (REQUIREMENTS A18, E8).

use crate::canonical::{NotCanonical, Reader, Writer};
use alloc::{string::String, vec::Vec};
use sha2::{Digest, Sha384};
use wire::chat::Role;

const LABEL: &str = "cloister manifest v1";

/// How a frame is encoded: whether there is one, and whether a space follows.
const NO_FRAME: u64 = 0;
const FRAME: u64 = 1;
const FRAME_AND_SPACE: u64 = 2;

/// Guest-physical address at which both containers place the encoded manifest: its length (`u32`,
/// little-endian), then its bytes.
pub const MANIFEST_GPA: u64 = 0x0018_0000;
/// Most bytes that the length and the encoded manifest may take together.
pub const MANIFEST_MAX_BYTES: usize = 64 * 1024;
/// Most virtual CPUs of a guest.
pub const MAX_VCPUS: u32 = 64;

/// SHA-384 of a manifest's encoding.
pub type ManifestDigest = [u8; 48];

/// The model that the guest serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelIdentity {
    /// Name shown to clients.
    pub name: String,
    /// Length of the GGUF file in bytes.
    pub weights_bytes: u64,
    /// Root of the file's tree hash, see [`crate::weights`].
    pub weights_root: [u8; 48],
}

/// Limits that every session obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Prompt and answer together, in tokens; at most what the model was trained for.
    pub context_tokens: u32,
    /// Longest answer in tokens.
    pub output_tokens: u32,
    /// Sessions that may generate at the same time.
    pub sessions: u32,
    /// TLS connections that may be open at the same time.
    pub connections: u32,
    /// Largest request body in bytes.
    pub request_bytes: u32,
    /// A connection without traffic for so long is dropped, in milliseconds of the untrusted clock.
    pub idle_ms: u32,
    /// One record of an answer leaves every so many milliseconds of the untrusted clock (REQUIREMENTS C6); above 0.
    pub pace_ms: u32,
    /// The records of an answer are a multiple of this; above 0.
    pub answer_records: u32,
}

/// A device at its fixed place on PCI bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSlot {
    /// Device number, 0 to 31; the function is 0.
    pub device: u8,
    /// Guest-physical address that the guest gives to the device's 64-bit memory BAR; 16 KiB-aligned, below 4 GiB.
    pub bar: u32,
}

/// The machine that the image runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// RAM in MiB, from address 0 up; 1024 or more.
    pub memory_mib: u32,
    /// Virtual CPUs, 1 to [`MAX_VCPUS`]; the guest starts those beside the first itself (REQUIREMENTS A16).
    pub vcpus: u32,
    /// virtio-net.
    pub network: DeviceSlot,
    /// virtio-blk with the weights.
    pub weights: DeviceSlot,
}

/// The guest's address on the operator's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// IPv4 address.
    pub address: [u8; 4],
    /// Length of the network prefix, 1 to 30.
    pub prefix: u8,
    /// Default gateway.
    pub gateway: [u8; 4],
    /// TCP port of the service.
    pub port: u16,
}

/// What stands before a text of a prompt: tokens, and whether the text is then tokenised with a space before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The tokens since the text before.
    pub tokens: Vec<u32>,
    /// Whether a space belongs to the text that follows.
    pub space: bool,
}

/// The model's chat template as token ids (REQUIREMENTS E2): user text is only ever placed between these, and is
/// itself never parsed for control tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatTemplate {
    /// By what stands before (nothing, a system turn, a user's, an assistant's) and after (a system turn, a user's, an
    /// assistant's, the answer that the model is to give). None where the format does not have that order.
    pub frames: [[Option<Frame>; 4]; 4],
    /// Tokens that end an answer.
    pub stop: Vec<u32>,
}

impl ChatTemplate {
    /// The frame between a turn, or the start of the prompt, and the next turn, or the answer.
    pub fn frame(&self, before: Option<Role>, after: Option<Role>) -> Option<&Frame> {
        self.frames[before.map_or(0, |role| 1 + role as usize)][after.map_or(3, |role| role as usize)]
            .as_ref()
    }

    /// The same, to be set.
    pub fn frame_mut(&mut self, before: Option<Role>, after: Option<Role>) -> &mut Option<Frame> {
        &mut self.frames[before.map_or(0, |role| 1 + role as usize)][after.map_or(3, |role| role as usize)]
    }

    /// A template in which what opens a turn does not depend on the turn before, and `close` ends every turn.
    pub fn from_turns(start: &[u32], open: [&[u32]; 3], close: &[u32], stop: Vec<u32>) -> Self {
        let mut template = Self { stop, ..Self::default() };
        for (before, frames) in template.frames.iter_mut().enumerate() {
            // Nothing is answered where nothing was said.
            let most = if before == 0 { 3 } else { 4 };
            for (after, frame) in frames.iter_mut().take(most).enumerate() {
                let ending = if before == 0 { start } else { close };
                // The answer is an assistant's turn.
                let opening = open[after.min(2)];
                *frame = Some(Frame { tokens: [ending, opening].concat(), space: false });
            }
        }
        template
    }
}

/// A task's measured instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskPrompt {
    /// `summarize`, `rewrite`, `reply` or `chat`.
    pub task: String,
    /// The system turn's tokens (plain text, tokenised at build time; may be empty).
    pub instruction: Vec<u32>,
}

/// The measured manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Name of the image, shown to clients.
    pub image: String,
    /// Version of the image, shown to clients.
    pub version: String,
    /// The model.
    pub model: ModelIdentity,
    /// The chat template.
    pub template: ChatTemplate,
    /// The tasks that this image serves.
    pub tasks: Vec<TaskPrompt>,
    /// Limits.
    pub limits: Limits,
    /// The machine.
    pub machine: Machine,
    /// The network.
    pub network: Network,
}

impl Manifest {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(LABEL);
        w.bytes(self.image.as_bytes()).bytes(self.version.as_bytes());
        w.bytes(self.model.name.as_bytes()).number(self.model.weights_bytes).bytes(&self.model.weights_root);
        let t = &self.template;
        for frame in t.frames.iter().flatten() {
            match frame {
                None => w.number(NO_FRAME),
                Some(frame) => {
                    w.number(if frame.space { FRAME_AND_SPACE } else { FRAME }).tokens(&frame.tokens)
                }
            };
        }
        w.tokens(&t.stop);
        w.number(self.tasks.len() as u64);
        for task in &self.tasks {
            w.bytes(task.task.as_bytes()).tokens(&task.instruction);
        }
        let l = &self.limits;
        for limit in [l.context_tokens, l.output_tokens, l.sessions, l.connections, l.request_bytes] {
            w.number(limit.into());
        }
        for limit in [l.idle_ms, l.pace_ms, l.answer_records] {
            w.number(limit.into());
        }
        w.number(self.machine.memory_mib.into()).number(self.machine.vcpus.into());
        for slot in [self.machine.network, self.machine.weights] {
            w.number(slot.device.into()).number(slot.bar.into());
        }
        let n = &self.network;
        w.bytes(&n.address).number(n.prefix.into()).bytes(&n.gateway).number(n.port.into());
        w.finish()
    }

    /// Reads the canonical encoding; anything else, trailing bytes included, is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotCanonical> {
        let mut r = Reader::new(bytes, LABEL)?;
        let manifest = Self {
            image: r.text()?.into(),
            version: r.text()?.into(),
            model: ModelIdentity {
                name: r.text()?.into(),
                weights_bytes: r.number()?,
                weights_root: r.array()?,
            },
            template: {
                let mut template = ChatTemplate::default();
                for frame in template.frames.iter_mut().flatten() {
                    *frame = match r.number()? {
                        NO_FRAME => None,
                        kind @ (FRAME | FRAME_AND_SPACE) => {
                            Some(Frame { tokens: r.tokens()?, space: kind == FRAME_AND_SPACE })
                        }
                        _ => return Err(NotCanonical),
                    };
                }
                template.stop = r.tokens()?;
                template
            },
            tasks: {
                let count: u8 = r.number()?;
                (0..count)
                    .map(|_| Ok(TaskPrompt { task: r.text()?.into(), instruction: r.tokens()? }))
                    .collect::<Result<_, NotCanonical>>()?
            },
            limits: Limits {
                context_tokens: r.number()?,
                output_tokens: r.number()?,
                sessions: r.number()?,
                connections: r.number()?,
                request_bytes: r.number()?,
                idle_ms: r.number()?,
                pace_ms: r.number()?,
                answer_records: r.number()?,
            },
            machine: Machine {
                memory_mib: r.number()?,
                vcpus: r.number()?,
                network: DeviceSlot { device: r.number()?, bar: r.number()? },
                weights: DeviceSlot { device: r.number()?, bar: r.number()? },
            },
            network: Network {
                address: r.array()?,
                prefix: r.number()?,
                gateway: r.array()?,
                port: r.number()?,
            },
        };
        r.finish()?;
        Ok(manifest)
    }

    /// Digest of the canonical encoding.
    pub fn digest(&self) -> ManifestDigest {
        Sha384::digest(self.encode()).into()
    }

    /// The instruction of a task, or `None` if the image does not serve it.
    pub fn task(&self, name: &str) -> Option<&TaskPrompt> {
        self.tasks.iter().find(|t| t.task == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn tokens() -> impl Strategy<Value = Vec<u32>> {
        vec(any::<u32>(), 0..6)
    }

    prop_compose! {
        fn frame()(tokens in tokens(), space: bool) -> Frame {
            Frame { tokens, space }
        }
    }

    prop_compose! {
        fn template()(
            frames in prop::array::uniform4(prop::array::uniform4(prop::option::of(frame()))), stop in tokens(),
        ) -> ChatTemplate {
            ChatTemplate { frames, stop }
        }
    }

    prop_compose! {
        fn slot()(device: u8, bar: u32) -> DeviceSlot {
            DeviceSlot { device, bar }
        }
    }

    prop_compose! {
        fn limits()(limits: [u32; 8]) -> Limits {
            let [context_tokens, output_tokens, sessions, connections, request_bytes, idle_ms, pace_ms, answer_records] = limits;
            Limits { context_tokens, output_tokens, sessions, connections, request_bytes, idle_ms, pace_ms, answer_records }
        }
    }

    prop_compose! {
        fn manifest()(
            image: String, version: String, name: String, weights_bytes: u64, root in vec(any::<u8>(), 48),
            template in template(), tasks in vec((any::<String>(), tokens()), 0..5), limits in limits(),
            memory_mib: u32, vcpus: u32, network in slot(), weights in slot(),
            address: [u8; 4], prefix: u8, gateway: [u8; 4], port: u16,
        ) -> Manifest {
            Manifest {
                image,
                version,
                model: ModelIdentity { name, weights_bytes, weights_root: root.try_into().unwrap() },
                template,
                tasks: tasks.into_iter().map(|(task, instruction)| TaskPrompt { task, instruction }).collect(),
                limits,
                machine: Machine { memory_mib, vcpus, network, weights },
                network: Network { address, prefix, gateway, port },
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(manifest in manifest()) {
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }

        #[test]
        fn b7_every_truncation_and_extension_is_refused(manifest in manifest(), more in vec(any::<u8>(), 1..9)) {
            let encoded = manifest.encode();
            for length in 0..encoded.len() {
                prop_assert_eq!(Manifest::decode(&encoded[..length]), Err(NotCanonical));
            }
            prop_assert_eq!(Manifest::decode(&[encoded, more].concat()), Err(NotCanonical));
        }

        #[test]
        fn b7_another_manifest_has_another_digest(one in manifest(), other in manifest()) {
            prop_assert_eq!(one.digest() == other.digest(), one == other);
        }

        #[test]
        fn b7_an_altered_byte_never_gives_the_same_manifest(
            manifest in manifest(), at in any::<prop::sample::Index>(), bits in 1u8..,
        ) {
            let mut encoded = manifest.encode();
            let at = at.index(encoded.len());
            encoded[at] ^= bits;
            if let Ok(altered) = Manifest::decode(&encoded) {
                prop_assert_ne!(&altered, &manifest);
                prop_assert_eq!(altered.encode(), encoded);
            }
        }
    }
}
