//! Arguments, exit codes and what is shown.

mod failure;
mod show;

use clap::{Args, Parser, Subcommand};
use client::session::Session;
use client::way::Prepared;
use client::{export, policy, task};
pub use failure::Failure;
pub use show::error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use wire::task::SummarizeRequest;

const EXAMPLES: &str = "\
Examples:
  cloister summarize 'WhatsApp Chat with Family.txt' --last 20 --policy policy.toml
  cloister verify --server guest.example:443 --policy policy.toml --json
  cloister verify --server guest.example:443 --policy policy.toml --proof cloister.tlog-proof
  cloister policy --log trust.toml --out policy.toml

The policy's [way] and [tokens] say through which relay, gateway and issuer; --server goes to a guest directly.

Exit codes: 0 done, 2 wrong arguments, 3 the chat cannot be read, 4 the policy cannot be used, 5 no connection,
6 evidence rejected (nothing was sent), 7 refused by the guest, 8 the answer broke off, 9 the device's own failure.";

/// Private summaries from a confidential VM whose evidence is checked before a byte is sent.
#[derive(Parser)]
#[command(name = "cloister", version, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Summarises the last messages of an exported chat.
    Summarize {
        /// A text file that WhatsApp's "Export chat" made, on iOS or Android.
        chat: PathBuf,
        /// How many messages to send, counted from the end; nothing else of the file is sent.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        last: u32,
        /// Upper bound of the summary in tokens.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        max_tokens: Option<u32>,
        #[command(flatten)]
        server: Server,
    },
    /// Checks a guest's evidence and sends nothing else.
    Verify {
        #[command(flatten)]
        server: Server,
    },
    /// Writes a policy that accepts the images that a log proves, or pins one image for tests.
    Policy {
        /// File with a `[log]` section, as `cloister-log trust` prints it.
        #[arg(long, required_unless_present = "digests", conflicts_with = "digests")]
        log: Option<PathBuf>,
        /// Pin the image of this `digests.json`, whether or not a log knows it. For tests: every screen says so.
        #[arg(long)]
        digests: Option<PathBuf>,
        /// PEM file of the root of an SNP model. Sessions that it vouches for protect nothing.
        #[arg(long)]
        development_root: Option<PathBuf>,
        /// Where to write the policy.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Args)]
struct Server {
    /// Connect to this guest directly, so that its operator sees this device's address. Without it, the policy's `[way]`
    /// leads through a relay and a gateway.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    server: Option<String>,
    /// What evidence to accept; see `cloister policy`.
    #[arg(long)]
    policy: PathBuf,
    /// The log's proof for the image, in place of one that the host attached to the evidence.
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Longest single wait for the guest, in seconds.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

/// Does what the arguments say.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Summarize { chat, last, max_tokens, server } => {
            // The chat is read before the network is touched: a wrong file is the commoner mistake.
            let request = request(&chat, last as usize, max_tokens)?;
            wait_for(summarize(request, server))
        }
        Command::Verify { server } => wait_for(verify(server)),
        Command::Policy { log, digests, development_root, out } => {
            let root = development_root.as_deref();
            match (log, digests) {
                (Some(log), _) => policy::write_logged(&log, root, &out)?,
                (None, digests) => policy::write_pinned(&digests.unwrap_or_default(), root, &out)?,
            }
            Ok(())
        }
    }
}

fn wait_for(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::Runtime)?;
    let result = runtime.block_on(command);
    // A name that is still being looked up must not hold up the end.
    runtime.shutdown_background();
    result
}

/// An address with a host and a port; whether they exist is found out later.
fn address(text: &str) -> Result<String, &'static str> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("give a host and a port, such as guest.example:443"),
    }
}

fn request(
    chat: &std::path::Path,
    last: usize,
    max_tokens: Option<u32>,
) -> Result<SummarizeRequest, Failure> {
    let shown = || chat.display().to_string();
    let bytes = std::fs::read(chat).map_err(|source| Failure::ChatFile { path: shown(), source })?;
    let mut messages = export::read(&bytes).map_err(|source| Failure::Chat { path: shown(), source })?;
    let messages = messages.split_off(messages.len().saturating_sub(last));
    Ok(SummarizeRequest { messages, max_tokens })
}

async fn connect(server: &Server, progress: &show::Progress) -> Result<Session, Failure> {
    let mut policy = policy::load(&server.policy)?;
    if let Some(path) = &server.proof {
        let proof = std::fs::read(path)
            .map_err(|source| Failure::ProofFile { path: path.display().to_string(), source })?;
        policy = policy.with_proof(proof);
    }
    let patience = Duration::from_secs(server.timeout);
    let (policy, step) = (Arc::new(policy), |step| progress.step(step));
    if let Some(server) = &server.server {
        return Ok(Session::connect(server, policy, patience, step).await?);
    }
    let prepared = Prepared::load(&server.policy)?.ok_or_else(|| Failure::NoWay(server.policy.clone()))?;
    let (session, hurried) = prepared.session(policy, patience, step).await?;
    if hurried {
        show::note(
            "the token was fetched right before its use; who sees issuer and gateway could join the two by time",
        );
    }
    Ok(session)
}

async fn summarize(request: SummarizeRequest, server: Server) -> Result<(), Failure> {
    let progress = show::Progress::new();
    let mut session = connect(&server, &progress).await?;
    progress.text("the guest reads the messages");
    let mut answer = show::Answer::new(server.json);
    let result = task::summarize(&mut session, &request, |text| {
        progress.finish();
        answer.text(text);
    })
    .await;
    progress.finish();
    let shown = answer.end().map_err(Failure::Output);
    if result.is_err() && !server.json && !answer.whole().is_empty() {
        // Whoever reads a part of an answer must see where it comes from, too; why it is a part is told below.
        let _ = show::verdict(session.verdict());
    }
    let done = result?;
    shown?;
    let complete = done.reason == wire::task::FinishReason::Stop;
    let sent = request.messages.len();
    if server.json {
        show::json(&serde_json::json!({
            "summary": answer.whole(),
            "complete": complete,
            "messages_sent": sent,
            "prompt_tokens": done.prompt_tokens,
            "completion_tokens": done.completion_tokens,
            "evidence": show::evidence_json(&session),
        }))
    } else {
        if !complete {
            show::note("the summary reached its length limit and may end early");
        }
        show::verdict(session.verdict())
    }
    .map_err(Failure::Output)
}

async fn verify(server: Server) -> Result<(), Failure> {
    let progress = show::Progress::new();
    let session = connect(&server, &progress).await?;
    progress.finish();
    if server.json {
        show::json(&serde_json::json!({ "evidence": show::evidence_json(&session) }))
    } else {
        show::verdict(session.verdict())
    }
    .map_err(Failure::Output)
}
