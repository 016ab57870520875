//! The manifest's source: a TOML file that people write, made into the [`Manifest`] that is measured.
//!
//! It names a GGUF file. The file's length and hash go into the manifest, and its vocabulary turns the template's and
//! the instructions' texts into tokens: nothing is left to be tokenised or looked up in the guest.

use crate::limits::{self, OutOfBounds};
use crate::template::{ModelTemplate, TemplateError};
use attestation::manifest::{
    ChatTemplate, DeviceSlot, Limits, Machine, Manifest, ModelIdentity, Network, TaskPrompt,
};
use attestation::weights;
use inference::{Model, Tokenizer, gguf};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};
use wire::chat::Role;

/// Why a manifest's source cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be read.
    #[error("the manifest {path} cannot be read: {source}; name another one with --manifest")]
    Read {
        /// The TOML file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a manifest.
    #[error("the manifest {path} is not one: {source}compare it with models/manifest.toml")]
    Syntax {
        /// The TOML file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The weights cannot be read.
    #[error(
        "the weights {path} cannot be read: {source}; correct `model.weights`, which is relative to the manifest"
    )]
    Weights {
        /// The GGUF file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The weights are not a model file that the guest could load.
    #[error(
        "the weights {path} are not a GGUF file that the guest can load: {reason}; download or convert the model \
         again, or choose another"
    )]
    Gguf {
        /// The GGUF file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A token that the model does not have.
    #[error(
        "`{place}` names the control token `{name}`, which the model's vocabulary does not have; look up its names in \
         `tokenizer.ggml.tokens` of the GGUF file"
    )]
    ControlToken {
        /// The manifest's field.
        place: String,
        /// The name.
        name: String,
    },
    /// The model's chat template cannot be used, or is not what the manifest says.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A value is outside what the guest accepts.
    #[error(transparent)]
    OutOfBounds(#[from] OutOfBounds),
}

/// A manifest that was made from its source.
#[derive(Debug)]
pub struct Source {
    /// What is measured.
    pub manifest: Manifest,
    /// The GGUF file that it names.
    pub weights: PathBuf,
}

impl Source {
    /// Reads `path` and the GGUF file that it names.
    pub fn load(path: &Path) -> Result<Self, SourceError> {
        let text =
            fs::read_to_string(path).map_err(|source| SourceError::Read { path: path.into(), source })?;
        let file: File = toml::from_str(&text)
            .map_err(|source| SourceError::Syntax { path: path.into(), source: Box::new(source) })?;
        let weights = path.parent().unwrap_or(Path::new("")).join(&file.model.weights);
        let bytes =
            fs::read(&weights).map_err(|source| SourceError::Weights { path: weights.clone(), source })?;
        let manifest = file.into_manifest(&weights, &bytes)?;
        Ok(Self { manifest, weights })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    image: Image,
    model: ModelTable,
    template: Option<Template>,
    tasks: BTreeMap<String, String>,
    limits: LimitsTable,
    machine: MachineTable,
    network: NetworkTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    name: String,
    version: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelTable {
    name: String,
    weights: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    start: Vec<Piece>,
    system: Vec<Piece>,
    user: Vec<Piece>,
    assistant: Vec<Piece>,
    close: Vec<Piece>,
    stop: Vec<Piece>,
    /// Whether the model's own template is not compared.
    #[serde(default)]
    differs_from_model: bool,
}

/// A piece of the template: text, or the name of a control token.
#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Control(Control),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    control: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    context_tokens: u32,
    output_tokens: u32,
    sessions: u32,
    connections: u32,
    request_bytes: u32,
    idle_ms: u32,
    pace_ms: u32,
    answer_records: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineTable {
    memory_mib: u32,
    vcpus: u32,
    network: SlotTable,
    weights: SlotTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotTable {
    device: u8,
    bar: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkTable {
    address: String,
    gateway: String,
    port: u16,
}

impl File {
    fn into_manifest(self, path: &Path, gguf: &[u8]) -> Result<Manifest, SourceError> {
        // Loaded as the guest does it, so that what the guest would refuse makes no image.
        let model = Model::load(gguf)
            .map_err(|error| SourceError::Gguf { path: path.into(), reason: error.to_string() })?;
        let tokenizer = model.tokenizer();
        let (weights_root, weights_bytes) =
            weights::root(gguf).map_err(|source| SourceError::Weights { path: path.into(), source })?;

        let gguf = gguf::File::parse(gguf)
            .map_err(|error| SourceError::Gguf { path: path.into(), reason: error.to_string() })?;
        let own = ModelTemplate::from_gguf(&gguf, tokenizer)?;
        let template = match &self.template {
            None => own.ok_or(TemplateError::Missing)?.frames()?,
            Some(written) => {
                let template = written.frames(tokenizer)?;
                if let Some(own) = own.filter(|_| !written.differs_from_model) {
                    own.check(&template)?;
                }
                template
            }
        };
        let space = template.frame(None, Some(Role::System)).is_some_and(|frame| frame.space);
        let tasks = self.tasks.into_iter();
        let tasks = tasks
            .map(|(task, text)| TaskPrompt { task, instruction: instruction(tokenizer, &text, space) })
            .collect();
        let (address, prefix) = limits::subnet(&self.network.address)?;
        let slot = |table: &SlotTable| DeviceSlot { device: table.device, bar: table.bar };
        let l = &self.limits;
        let manifest = Manifest {
            image: self.image.name,
            version: self.image.version,
            model: ModelIdentity { name: self.model.name, weights_bytes, weights_root },
            template,
            tasks,
            limits: Limits {
                context_tokens: l.context_tokens,
                output_tokens: l.output_tokens,
                sessions: l.sessions,
                connections: l.connections,
                request_bytes: l.request_bytes,
                idle_ms: l.idle_ms,
                pace_ms: l.pace_ms,
                answer_records: l.answer_records,
            },
            machine: Machine {
                memory_mib: self.machine.memory_mib,
                vcpus: self.machine.vcpus,
                network: slot(&self.machine.network),
                weights: slot(&self.machine.weights),
            },
            network: Network {
                address,
                prefix,
                gateway: limits::address("network.gateway", &self.network.gateway)?,
                port: self.network.port,
            },
        };
        limits::check(&manifest, u32::try_from(model.config().context_length).unwrap_or(u32::MAX))?;
        Ok(manifest)
    }
}

impl Template {
    fn frames(&self, tokenizer: &Tokenizer) -> Result<ChatTemplate, SourceError> {
        let tokens = |place: &str, pieces| tokens(tokenizer, &format!("template.{place}"), pieces);
        let open = [
            tokens("system", &self.system)?,
            tokens("user", &self.user)?,
            tokens("assistant", &self.assistant)?,
        ];
        for (field, open) in [("template.user", &open[1]), ("template.assistant", &open[2])] {
            if open.is_empty() {
                let problem = "is empty; the guest could not tell where an answer begins or ends";
                return Err(OutOfBounds { field: field.into(), problem: problem.into() }.into());
            }
        }
        let (start, close) = (tokens("start", &self.start)?, tokens("close", &self.close)?);
        let open = [open[0].as_slice(), &open[1], &open[2]];
        Ok(ChatTemplate::from_turns(&start, open, &close, tokens("stop", &self.stop)?))
    }
}

/// The tokens of a task's instruction; none if it is empty, even where a space would stand before it.
fn instruction(tokenizer: &Tokenizer, text: &str, space: bool) -> Vec<u32> {
    if text.is_empty() { Vec::new() } else { tokenizer.encode_continued(text, space) }
}

fn tokens(tokenizer: &Tokenizer, place: &str, pieces: &[Piece]) -> Result<Vec<u32>, SourceError> {
    let mut tokens = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => tokens.extend(tokenizer.encode(text)),
            Piece::Control(Control { control }) => {
                tokens.push(tokenizer.control(control).ok_or_else(|| SourceError::ControlToken {
                    place: place.into(),
                    name: control.clone(),
                })?)
            }
        }
    }
    Ok(tokens)
}
