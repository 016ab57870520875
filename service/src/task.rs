//! From the body of a request to an order for the engine.

use crate::answer::Shape;
use crate::connection::Route;
use crate::http::{Refusal, Status};
use crate::json::NotJson;
use crate::prompt::{self, Prompt};
use crate::requests::{ChatRequest, SummarizeRequest};
use attestation::manifest::{Manifest, TaskPrompt};
use inference::{Generation, Sampling, SubmitError, Tokenizer};
use rustls::crypto::SecureRandom;
use wire::task::ErrorCode;

/// What a request asks of the engine, and the form of its answer.
pub(crate) struct Task {
    pub(crate) shape: Shape,
    pub(crate) generation: Generation,
}

/// Reads the body of a task and builds its prompt.
pub(crate) fn prepare(
    route: Route,
    body: &[u8],
    manifest: &Manifest,
    tokenizer: &Tokenizer,
    random: &dyn SecureRandom,
) -> Result<Task, Refusal> {
    match route {
        Route::Evidence => Err(INTERNAL),
        Route::Summarize => summarize(body, manifest, tokenizer),
        Route::Chat => chat(body, manifest, tokenizer, random),
    }
}

fn summarize(body: &[u8], manifest: &Manifest, tokenizer: &Tokenizer) -> Result<Task, Refusal> {
    let request = SummarizeRequest::read(body).map_err(|NotJson| NOT_SUMMARIZE)?;
    let TaskPrompt { instruction, .. } = manifest.task("summarize").ok_or(NO_TASK)?;
    if request.messages.is_empty() {
        return Err(NO_MESSAGES);
    }
    let max_tokens = max_tokens(request.max_tokens, manifest)?;
    let prompt = prompt::summarize(&request, instruction, manifest, tokenizer).ok_or(INTERNAL)?;
    Ok(Task { shape: Shape::Task, generation: generation(prompt, max_tokens, Sampling::default(), manifest) })
}

fn chat(
    body: &[u8],
    manifest: &Manifest,
    tokenizer: &Tokenizer,
    random: &dyn SecureRandom,
) -> Result<Task, Refusal> {
    let request = ChatRequest::read(body).map_err(|NotJson| NOT_CHAT)?;
    let TaskPrompt { instruction, .. } = manifest.task("chat").ok_or(NO_TASK)?;
    if request.messages.is_empty() {
        return Err(NO_MESSAGES);
    }
    let max_tokens = max_tokens(request.max_tokens, manifest)?;
    let sampling = sampling(&request, random)?;
    let prompt = prompt::chat(&request, instruction, manifest, tokenizer).ok_or(BAD_ORDER)?;
    let shape = if request.stream { Shape::ChatStream } else { Shape::ChatWhole };
    Ok(Task { shape, generation: generation(prompt, max_tokens, sampling, manifest) })
}

/// Greedy unless the client asks for a temperature.
fn sampling(request: &ChatRequest, random: &dyn SecureRandom) -> Result<Sampling, Refusal> {
    let seed = match request.seed {
        Some(seed) => seed,
        None => {
            let mut seed = [0; 8];
            random.fill(&mut seed).map_err(|_| INTERNAL)?;
            u64::from_le_bytes(seed)
        }
    };
    let default = Sampling::default();
    let sampling = Sampling {
        temperature: request.temperature.unwrap_or(default.temperature),
        top_p: request.top_p.unwrap_or(default.top_p),
        top_k: request.top_k.unwrap_or(default.top_k),
        min_p: request.min_p.unwrap_or(default.min_p),
        repetition_penalty: request.repetition_penalty.unwrap_or(default.repetition_penalty),
        seed,
    };
    sampling.check().map(|()| sampling).map_err(|_| BAD_SAMPLING)
}

fn max_tokens(asked: Option<u32>, manifest: &Manifest) -> Result<u32, Refusal> {
    let limit = manifest.limits.output_tokens;
    match asked {
        Some(0) => Err(NO_TOKENS),
        Some(asked) => Ok(asked.min(limit)),
        None => Ok(limit),
    }
}

fn generation(mut prompt: Prompt, max_tokens: u32, sampling: Sampling, manifest: &Manifest) -> Generation {
    // The engine takes the tokens over, and wipes them when the generation ends or is refused.
    let prompt = core::mem::take(&mut *prompt);
    Generation { prompt, max_tokens, stop: manifest.template.stop.clone(), sampling }
}

/// The answer to a task that the engine does not take.
pub(crate) fn refusal(error: SubmitError) -> Refusal {
    match error {
        SubmitError::PromptTooLong { tokens, limit } => TOO_LONG.with_numbers(tokens as u64, limit as u64),
        SubmitError::Busy => BUSY,
        // The service checks or makes all of these itself.
        SubmitError::EmptyPrompt | SubmitError::TokenOutOfRange { .. } | SubmitError::Memory => INTERNAL,
    }
}

const fn bad(message: &'static str) -> Refusal {
    Refusal::new(Status::BadRequest, ErrorCode::BadRequest, message)
}

const NOT_SUMMARIZE: Refusal = bad(
    "the body must be JSON: an object with `messages`, a list of objects with `sender` and `text`, and optionally `max_tokens`",
);
const NOT_CHAT: Refusal = bad(
    "the body must be JSON: an object with `messages`, a list of objects with `role` and `content`, both text; see the OpenAI chat completion API",
);
const NO_MESSAGES: Refusal = bad("there are no messages; send at least one");
const BAD_ORDER: Refusal = bad(
    "the model's chat format does not have roles in this order; send at most one `system` message, first, and then `user` and `assistant` in turns, `user` last",
);
const NO_TOKENS: Refusal = bad("`max_tokens` must be at least 1");
const BAD_SAMPLING: Refusal = bad(
    "`temperature` must be from 0 to 2, `top_p` above 0 and at most 1, `min_p` from 0 to 1, and `repetition_penalty` from 0.1 to 10",
);
const NO_TASK: Refusal =
    Refusal::new(Status::NotFound, ErrorCode::NotFound, "this image does not serve that task");
const TOO_LONG: Refusal = Refusal::new(
    Status::Unprocessable,
    ErrorCode::PromptTooLong,
    "the prompt has more tokens than the model's context takes; send fewer or shorter messages",
);
const BUSY: Refusal =
    Refusal::new(Status::Unavailable, ErrorCode::Busy, "all sessions are taken; try again in a moment");
/// A defect.
pub(crate) const INTERNAL: Refusal = Refusal::new(
    Status::Internal,
    ErrorCode::Internal,
    "the guest failed, which is a defect; please report it to the image's authors",
);
