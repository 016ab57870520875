//! What the guest owes under each lie of a hostile host, and how to find out whether it keeps that.

use crate::build;
use crate::guest::{Guest, Start, development_root, policy};
use anyhow::{Context, Result};
use snp_model::hostile::{CANARY, Lie};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use wire::termination::Termination;

/// Longest wait for anything that a guest does.
const PATIENCE: Duration = Duration::from_secs(240);
/// Connections of a flood: several times what the default manifest allows.
const FLOOD: usize = 64;
/// Those among them that finish the handshake of TLS before they fall silent, which is when a guest gives them longest:
/// more than there are places.
const FLOOD_OF_TLS: usize = 20;
/// How often a client tries before it gives up, with a pause after each time: a host may cut its connection, and a flood
/// takes a while to ebb, whatever the guest does. None begins after half of the patience.
const TRIES: usize = 15;
/// The same where no answer is promised.
const FEW_TRIES: usize = 2;
const PAUSE: Duration = Duration::from_secs(1);
/// How long each try waits, in seconds: an answer takes a few, and a guest whose time-outs a host plays with may have
/// forgotten a client without a word.
const TRY_SECONDS: &str = "60";

/// What a host does to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// It tells a lie.
    Lie(Lie),
    /// Its clients take every place with finished handshakes, and then open more connections that never say anything, or say
    /// nonsense; all of them stay.
    Flood,
    /// Nothing: the model is only as strict as it always is.
    None,
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest ended itself with this code.
    Ended(Termination),
    /// The processor would not have let the guest go on; this is why.
    Stopped(String),
    /// A client got its answer over a verified session, and the guest was still there afterwards.
    Served,
    /// The client refused the guest's evidence and sent nothing.
    Refused(String),
    /// The canary was found in the guest's memory after the session, or never during it.
    Leaked(String),
    /// The guest was there to the end, and no client got an answer; the last one's words.
    Withheld(String),
    /// Anything else: a panic of a program, QEMU gone.
    Other(String),
}

/// What the guest owes under an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// It ends itself with this code.
    Ends(Termination),
    /// It serves as if nothing were wrong.
    Serves,
    /// It goes on and gives nothing away, but time-outs may cut its clients off: the host needs no lie for that.
    Stays,
    /// The processor stops it before anything gets out; the text is part of the reason.
    Stops(&'static str),
    /// Its evidence shows the lie, and the client refuses it with a message that has this text in it.
    IsRefused(&'static str),
}

impl Promise {
    /// The promise under `attack`.
    pub fn under(attack: Attack) -> Self {
        use Lie as L;
        use Termination as T;
        let Attack::Lie(lie) = attack else { return Self::Serves };
        match lie {
            L::InjectedVc | L::InjectedMmioVc | L::WrongVcCode | L::Remap => Self::Ends(T::UnexpectedVc),
            L::Int80 | L::Interrupt | L::Debug | L::Nmi | L::Divide => Self::Ends(T::UnexpectedVector),
            L::NoSnp | L::NoSev => Self::Ends(T::NotSnp),
            L::UnknownFeature | L::VirtualTom => Self::Ends(T::SevFeatures),
            L::CBitInPage | L::CBitOfHost | L::TooManyLeaves => Self::Ends(T::CBit),
            L::MissingLeaf => Self::Ends(T::CpuidLeaf),
            L::XsaveSize | L::LeafTwice => Self::Ends(T::CpuidPage),
            L::Revalidated | L::Rescinded | L::ValidationFails => Self::Ends(T::Validation),
            L::ShareRefused | L::WrongAnswer => Self::Ends(T::GhcbProtocol),
            L::ShareForged => Self::Stops("which is Unvalidated"),
            L::NotValid | L::Error | L::Generation | L::CardIndexJump => Self::Ends(T::DeviceDead),
            L::ChangeStalls | L::ChangeRewritten | L::NoMemory | L::LittleMemory => {
                Self::Ends(T::MemoryLayout)
            }
            L::Replay | L::WrongSequence | L::WrongVersion | L::Altered | L::Status | L::Dropped => {
                Self::Ends(T::GuestMessage)
            }
            L::WrongId | L::NoPlatform | L::RegistersOutside | L::CapabilityCircle | L::CardMac => {
                Self::Ends(T::DeviceMissing)
            }
            L::IndexJump | L::IdTooLarge | L::IdInside | L::TooLong | L::ResetInFlight => {
                Self::Ends(T::WeightsRead)
            }
            L::Truncated | L::Silent => Self::Ends(T::WeightsRead),
            L::BitFlip => Self::Ends(T::WeightsMismatch),
            L::RandomStuck | L::RandomCycle | L::RandomFails | L::NoRandom => Self::Ends(T::Entropy),
            L::DebugPolicy => Self::IsRefused("lets the host debug it"),
            L::MigrationPolicy => Self::IsRefused("migration agent"),
            L::NeverStarted | L::StartRefused | L::LaunchVmsa | L::StartedTwice => Self::Ends(T::CpuStart),
            L::CpuidAnswers
            | L::Split
            | L::StaleLines
            | L::DoubleFetch
            | L::Busy
            | L::ReplyChanges
            | L::Rewritten
            | L::Slow
            | L::SecondRead
            | L::TimeStops
            | L::TimeBackwards
            | L::ExtraDevices
            | L::NeverWoken
            | L::Scribble
            | L::Search => Self::Serves,
            L::TimeJumps => Self::Stays,
        }
    }

    /// Whether a run went as promised.
    pub fn is_kept(self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Ends(promised), Outcome::Ended(reason)) => promised == *reason,
            (Self::Serves | Self::Stays, Outcome::Served) | (Self::Stays, Outcome::Withheld(_)) => true,
            (Self::Stops(text), Outcome::Stopped(why)) => why.contains(text),
            (Self::IsRefused(text), Outcome::Refused(why)) => why.contains(text),
            _ => false,
        }
    }
}

/// An image and what it takes to run it and to be its client.
pub struct Site<'a> {
    /// Holds `cloister.rom` and `digests.json`.
    pub image: &'a Path,
    /// The launcher's state.
    pub state: &'a Path,
    /// The client program.
    pub client: PathBuf,
}

impl Site<'_> {
    /// Attacks a guest of this site.
    pub fn play(&self, attack: Attack) -> Result<Outcome> {
        let mut arguments = vec!["--state".to_owned(), self.state.display().to_string()];
        if let Attack::Lie(lie) = attack {
            arguments.extend(["--hostile".to_owned(), lie.name().to_owned()]);
            if lie.needs_one_cpu() {
                arguments.push("--icount".to_owned());
            }
        }
        let rom = self.image.join("cloister.rom");
        let mut guest = Guest::start(&Start { image: &rom, weights: &build::weights(), arguments })?;
        if guest.wait_for("listening on", PATIENCE).is_err() {
            return ended(&mut guest);
        }
        let flood = if attack == Attack::Flood { Some(Flood::on(&guest.server())?) } else { None };
        let tries = if Promise::under(attack) == Promise::Stays { FEW_TRIES } else { TRIES };
        let served = self.ask(&guest.server(), tries)?;
        drop(flood);
        if attack == Attack::Lie(Lie::Search) && served.is_none() {
            // One more connection, at whose opening the model searches.
            self.ask(&guest.server(), tries)?;
            return canary(&mut guest);
        }
        // A guest that is gone took its client along; a blow falls when it listens, so it falls in no time.
        std::thread::sleep(Duration::from_millis(300));
        match (guest.has_ended()?, served) {
            (true, _) => ended(&mut guest),
            (false, None) => Ok(Outcome::Served),
            (false, Some((EVIDENCE, why))) => Ok(Outcome::Refused(why)),
            (false, Some((_, why))) => Ok(Outcome::Withheld(why)),
        }
    }

    /// Asks for a summary; `None` if there was one, else the client's exit code and last words.
    fn ask(&self, server: &str, tries: usize) -> Result<Option<(i32, String)>> {
        let policy = policy(self.image, Some(&development_root(self.state)))?;
        let chat = self.chat()?;
        let mut last = (0, String::new());
        let start = Instant::now();
        for number in 0..tries {
            if number > 1 && start.elapsed() > PATIENCE / 2 {
                break;
            }
            let output = Command::new(&self.client)
                .args(["summarize", "--last", "3", "--timeout", TRY_SECONDS, "--server", server, "--policy"])
                .arg(&policy)
                .arg(&chat)
                .output()
                .context("cannot start the client")?;
            if output.status.success() {
                return Ok(None);
            }
            last = (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into());
            if last.0 == EVIDENCE || TcpStream::connect(server).is_err() {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(Some(last))
    }

    /// A chat with the canary in it.
    fn chat(&self) -> Result<PathBuf> {
        let path = self.image.join("canary.txt");
        let mut file = std::fs::File::create(&path)?;
        for (minute, text) in ["dinner on Friday?", "at Vera's, 19:30", "fine"].iter().enumerate() {
            let canary = String::from_utf8_lossy(CANARY);
            writeln!(file, "12/11/2026, 18:{minute:02} - Ines: {text} {canary}")?;
        }
        Ok(path)
    }
}

/// Exit code of a client that refused the evidence.
const EVIDENCE: i32 = 6;

fn ended(guest: &mut Guest) -> Result<Outcome> {
    const ITSELF: i32 = 10;
    const STOPPED: i32 = 11;
    let status = guest.wait(PATIENCE)?;
    let output = guest.output();
    let last = output.lines().rev().find(|line| line.starts_with("cloister-launch: ")).unwrap_or_default();
    let named = |reason: &&Termination| last.contains(&format!("({reason:?}, "));
    Ok(match (status.code(), Termination::ALL.iter().find(named)) {
        (Some(ITSELF), Some(reason)) => Outcome::Ended(*reason),
        (Some(STOPPED), _) => Outcome::Stopped(last.to_owned()),
        _ => Outcome::Other(last.to_owned()),
    })
}

fn canary(guest: &mut Guest) -> Result<Outcome> {
    const FOUND: &str = "the canary is in guest memory ";
    let after = guest.wait_for("times after the session", PATIENCE)?;
    let during = guest.wait_for("times while a request runs", PATIENCE)?;
    let times =
        |line: &str| -> Option<u64> { line.split_once(FOUND)?.1.split_whitespace().next()?.parse().ok() };
    Ok(match (times(&during), times(&after)) {
        (Some(1..), Some(0)) => Outcome::Served,
        _ => Outcome::Leaked(format!("{during}; {after}")),
    })
}

/// Connections that stay, until this is dropped.
struct Flood {
    sessions: Vec<Child>,
    /// Half of them are silent, the other half begin something that is no TLS record.
    _connections: Vec<TcpStream>,
}

impl Flood {
    fn on(server: &str) -> Result<Self> {
        let mut flood = Self { sessions: Vec::new(), _connections: Vec::new() };
        for _ in 0..FLOOD_OF_TLS {
            let session = Command::new("openssl")
                .args(["s_client", "-tls1_3", "-ign_eof", "-connect", server])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot start openssl")?;
            flood.sessions.push(session);
            let output = flood.sessions.last_mut().and_then(|session| session.stdout.take());
            // Said after the handshake. It is not said where the guest has no place, which is for the caller to judge.
            let mut lines = BufReader::new(output.context("openssl has no output")?).lines();
            lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("Verify return code")));
        }
        flood._connections = (0..FLOOD - FLOOD_OF_TLS)
            .filter_map(|number| {
                let mut stream = TcpStream::connect(server).ok()?;
                if number % 2 == 1 {
                    let _ = stream.write_all(&[22, 3, 1, 2, 0, 1, 0]);
                }
                Some(stream)
            })
            .collect();
        Ok(flood)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        for session in &mut self.sessions {
            let _ = session.kill();
            let _ = session.wait();
        }
    }
}

/// Every attack there is.
pub fn attacks() -> impl Iterator<Item = Attack> {
    [Attack::None, Attack::Flood].into_iter().chain(Lie::ALL.iter().map(|lie| Attack::Lie(*lie)))
}
