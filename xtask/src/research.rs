//! `cargo demo --research`: the production image in the SNP model, for whoever wants to attack it.
//!
//! The image is the one that `cloister-image` builds, byte for byte: there is no shell in it, and no switch that gives it one.
//! What can be seen is what any host sees: the guest's events, its VM exits by reason, its answers. What can be changed is the
//! host. Commands come from standard input, one a line, from a person or from a script.

use crate::guest::{Guest, Start, development_root};
use crate::log::Log;
use crate::{build, setup};
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value, json};
use snp_model::hostile::Lie;
use std::fs;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Longest wait for anything that a guest does.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long a connection of one's own may be silent before its answer counts as over.
const SILENCE: Duration = Duration::from_secs(5);
/// Most bytes of an answer that are read.
const ANSWER: u64 = 64 * 1024;

const HELP: &str = "\
  host NAME         boot the image again, on a host that does this; `host honest` for one that does nothing
  lies [WORD]       what a host can do, by name
  send [FILE] [N]   have the last N messages of a chat summarised, in an attested session; with what came of it
  verify            check the guest's evidence as a client does, and send nothing
  bytes HEX         send these bytes to the guest's port, and show what comes back
  flood N           open N connections that say nothing, and keep them; `flood 0` closes them
  events            everything that the guest told its host since it was booted
  exits             what it needed its host for, by reason: since it was booted, and since this was last asked
  image             what is running: the launch digest that was measured, and the one that the builder computed
  wait SECONDS      wait, and show what happens meanwhile
  help, quit";

/// How the environment starts.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Folder with `cloister.rom` and `digests.json` of an image that was published; without it, this checkout's is built.
    pub image: Option<PathBuf>,
    /// What the host does from the start.
    pub hostile: Option<String>,
    /// One JSON object a line instead of text.
    pub json: bool,
}

/// Builds what is needed, boots the image and obeys standard input until it ends.
///
/// # Errors
/// If the environment cannot be set up, or a command was not understood. What an attack does to a guest is no error.
pub fn run(options: &Options) -> Result<()> {
    setup::for_demo()?;
    eprintln!("research: building the programs and the image");
    build::programs()?;
    let folder = build::target()?.join("research");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let image = match &options.image {
        Some(image) => fs::canonicalize(image).with_context(|| format!("no image in {}", image.display()))?,
        None => {
            // What the builder prints is no answer to a command.
            let mut build = Command::new(build::program("cloister-image")?);
            build.arg("build").arg("--out").arg(&folder).current_dir(build::root());
            build::run(build.stdout(std::process::Stdio::null()))?;
            folder.clone()
        }
    };
    let log = Log::start(&folder.join("log"))?;
    let proof = log.publish(&image)?;
    let site = Site { image, state: folder.join("state"), proof, log };
    let mut lab = Lab::new(site, options.json);
    lab.host(options.hostile.as_deref().unwrap_or(HONEST))?;

    let input = std::io::stdin();
    let prompt = input.is_terminal() && !options.json;
    if prompt {
        println!("{HELP}");
    }
    let mut refused = 0;
    loop {
        if prompt {
            print!("> ");
            std::io::stdout().flush()?;
        }
        let mut line = String::new();
        if input.lock().read_line(&mut line)? == 0 {
            break;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match lab.obey(&words) {
            Ok(true) => (),
            Ok(false) => break,
            Err(error) => {
                refused += 1;
                lab.say(&format!("{error:#}"), &json!({ "error": format!("{error:#}") }));
            }
        }
    }
    ensure!(refused == 0, "{refused} commands could not be carried out");
    Ok(())
}

/// The host that does nothing to its guest.
const HONEST: &str = "honest";

/// What is attacked, and what its clients need.
struct Site {
    image: PathBuf,
    state: PathBuf,
    proof: PathBuf,
    log: Log,
}

/// A guest, and what was seen of it.
struct Lab {
    site: Site,
    json: bool,
    guest: Option<Guest>,
    ended: bool,
    host: String,
    happenings: Vec<Value>,
    /// Counts of the guest's needs: the newest, and those that were shown last.
    counts: (Map<String, Value>, Map<String, Value>),
    flood: Vec<TcpStream>,
}

impl Lab {
    fn new(site: Site, json: bool) -> Self {
        let (happenings, flood) = (Vec::new(), Vec::new());
        let counts = (Map::new(), Map::new());
        Self { site, json, guest: None, ended: false, host: HONEST.into(), happenings, counts, flood }
    }

    /// Tells a person, or a program.
    fn say(&self, text: &str, object: &Value) {
        if self.json { println!("{object}") } else { println!("{text}") }
    }

    /// Does what a line asks for; false if it asks for the end.
    fn obey(&mut self, words: &[&str]) -> Result<bool> {
        let number = |text: &str| text.parse::<usize>().with_context(|| format!("{text:?} is not a number"));
        match words {
            [] => self.look(),
            ["quit" | "exit"] => return Ok(false),
            ["help"] => self.say(HELP, &json!({ "help": HELP })),
            ["lies"] => self.lies(""),
            ["lies", part] => self.lies(part),
            ["host", name] => self.host(name)?,
            ["send"] => self.send(None, 12)?,
            ["send", file] => self.send(Some(Path::new(file)), 12)?,
            ["send", file, last] => self.send(Some(Path::new(file)), number(last)?)?,
            ["verify"] => self.client("verify", &[])?,
            ["bytes", hex] => self.bytes(hex)?,
            ["flood", count] => self.flood(number(count)?)?,
            ["events"] => self.events(),
            ["exits"] => self.exits(),
            ["image"] => self.image()?,
            ["wait", seconds] => {
                std::thread::sleep(Duration::from_secs(number(seconds)? as u64));
                self.look();
            }
            other => bail!("there is no command {:?}; `help` lists them", other.join(" ")),
        }
        Ok(true)
    }

    fn lies(&self, part: &str) {
        for lie in Lie::ALL.iter().filter(|lie| lie.name().contains(part) || lie.about().contains(part)) {
            let (name, about) = (lie.name(), lie.about());
            self.say(&format!("  {name:26} {about}"), &json!({ "lie": name, "about": about }));
        }
    }

    /// Boots the image on another host.
    fn host(&mut self, name: &str) -> Result<()> {
        let lie = match name {
            HONEST => None,
            name => Some(
                Lie::from_name(name)
                    .ok_or_else(|| anyhow!("no host does {name:?}; `lies` lists what one can do"))?,
            ),
        };
        self.flood.clear();
        // The guest before this one ends with its launcher.
        self.guest = None;
        self.happenings.clear();
        self.counts = (Map::new(), Map::new());
        (self.ended, self.host) = (false, name.to_owned());
        let path = |path: &Path| path.display().to_string();
        let mut arguments = vec!["--json".to_owned(), "--state".into(), path(&self.site.state)];
        arguments.extend(["--proof".into(), path(&self.site.proof)]);
        if let Some(lie) = lie {
            arguments.extend(["--hostile".into(), lie.name().into()]);
            if lie.needs_one_cpu() {
                arguments.push("--icount".into());
            }
        }
        let rom = self.site.image.join("cloister.rom");
        self.guest = Some(Guest::start(&Start { image: &rom, weights: &build::weights(), arguments })?);
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.look();
            let listens = self.happenings.iter().any(|happening| happening["listening"].is_string());
            if listens || self.ended || Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Reads what the launcher said since the last time, and shows it. Counts are kept for `exits`.
    fn look(&mut self) {
        let Some(guest) = &mut self.guest else { return };
        let lines = guest.news();
        let gone = guest.has_ended().unwrap_or(true);
        for line in lines.into_iter().chain(if gone { guest.news() } else { Vec::new() }) {
            // What is no object stands on standard error; the object with `ended` says the same.
            let Ok(happening @ Value::Object(_)) = serde_json::from_str::<Value>(&line) else { continue };
            if let Value::Object(counts) = &happening["counts"] {
                self.counts.0 = counts.clone();
                continue;
            }
            self.ended |= !happening["ended"].is_null();
            self.show(&happening);
            self.happenings.push(happening);
        }
        self.ended |= gone;
    }

    fn show(&self, happening: &Value) {
        let word = |name: &str| happening[name].as_str().map(str::to_owned);
        let at = happening["seconds"].as_f64().map(|seconds| format!("{seconds:9.3} ")).unwrap_or_default();
        let text = if let Some(event) = word("event") {
            format!("{at}guest: {event} {} {}", happening["detail"], happening["value"])
        } else if let Some(line) = word("model") {
            format!("{at}host: {line}")
        } else if let Some(line) = word("qemu") {
            format!("{at}qemu: {line}")
        } else if let Some(note) = word("note") {
            format!("{note}: {}", word("value").unwrap_or_default())
        } else if let Some(reason) = word("reason") {
            format!("the guest has ended: {reason}")
        } else {
            match word("listening") {
                Some(address) => format!("the guest listens on {address}"),
                None => happening.to_string(),
            }
        };
        self.say(&text, happening);
    }

    fn events(&mut self) {
        self.look();
        self.happenings
            .iter()
            .filter(|happening| happening["event"].is_string())
            .for_each(|event| self.show(event));
    }

    fn exits(&mut self) {
        self.look();
        let (now, before) = &self.counts;
        let mut reasons = Map::new();
        for (reason, count) in now {
            let (count, before) = (count.as_u64().unwrap_or(0), before.get(reason).and_then(Value::as_u64));
            let since = count.saturating_sub(before.unwrap_or(0));
            if !self.json {
                println!("  {reason:16} {count:>12} {since:>+12}");
            }
            reasons.insert(reason.clone(), json!({ "boot": count, "since": since }));
        }
        if self.json {
            println!("{}", json!({ "exits": reasons }));
        }
        self.counts.1 = self.counts.0.clone();
    }

    fn image(&mut self) -> Result<()> {
        const MEASURED: &str = "launch digest ";
        self.look();
        let model = self.happenings.iter().filter_map(|happening| happening["model"].as_str());
        let measured = model.filter_map(|line| line.strip_prefix(MEASURED)).next_back().unwrap_or("nothing");
        let text = fs::read(self.site.image.join("digests.json"))?;
        let listed: Value = serde_json::from_slice(&text)?;
        let known = listed["launch_digests"].as_array().into_iter().flatten();
        let machine = known.into_iter().find(|launch| launch["digest"] == measured);
        let machine = machine.map_or("no machine".into(), |launch| {
            format!(
                "{}, {} vCPUs, {}",
                launch["container"].as_str().unwrap_or_default(),
                launch["vcpus"],
                launch["cpu_type"].as_str().unwrap_or_default()
            )
        });
        let text = format!(
            "image {} {}, host {}\nmeasured {measured}\nwhich digests.json has for: {machine}",
            listed["image"]["name"].as_str().unwrap_or_default(),
            listed["image"]["version"].as_str().unwrap_or_default(),
            self.host
        );
        self.say(
            &text,
            &json!({ "image": listed["image"], "host": self.host, "measured": measured, "machine": machine }),
        );
        Ok(())
    }

    /// Where the guest listens, if there is one; that it has ended is what came of a command, and no mistake.
    fn server(&self) -> Option<String> {
        let server = self.guest.as_ref().filter(|_| !self.ended).map(Guest::server);
        if server.is_none() {
            self.say("the guest has ended; `host honest` boots it again", &json!({ "guest": "ended" }));
        }
        server
    }

    fn send(&mut self, chat: Option<&Path>, last: usize) -> Result<()> {
        let sample = build::root().join("models/samples/family-android.txt");
        let chat = chat.unwrap_or(&sample).display().to_string();
        self.client("summarize", &[&chat, "--last", &last.to_string()])
    }

    /// Runs the client, with the policy that this log's clients have, and says what came of it.
    fn client(&mut self, command: &str, arguments: &[&str]) -> Result<()> {
        let Some(server) = self.server() else { return Ok(()) };
        let policy = self.site.log.policy("0.1.0", &development_root(&self.site.state))?;
        let mut client = Command::new(build::program("cloister")?);
        client.arg(command).args(arguments).args(["--server", &server, "--policy"]).arg(policy);
        let output = client.output().context("cannot start the client")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        let (said, error, code) = (text(&output.stdout), text(&output.stderr), output.status.code());
        let ended = code.map_or("a signal".into(), |code| format!("code {code}"));
        let shown = format!("{said}\n{error}\nthe client ended with {ended}");
        self.say(
            shown.trim_start(),
            &json!({ "client": command, "code": code, "output": said, "error": error }),
        );
        self.settle();
        Ok(())
    }

    fn bytes(&mut self, text: &str) -> Result<()> {
        let digits = text.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2);
            pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())
        });
        let bytes: Option<Vec<u8>> = digits.collect();
        let bytes = bytes.context("bytes are given in hexadecimal, two digits each")?;
        let Some(server) = self.server() else { return Ok(()) };
        let mut stream = TcpStream::connect(server).context("the guest takes no connection")?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.write_all(&bytes)?;
        let mut answer = Vec::new();
        // An answer that ends with silence, or with a reset, is one as well.
        let ended = match stream.take(ANSWER).read_to_end(&mut answer) {
            Ok(_) => "closed",
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                "silent"
            }
            Err(_) => "reset",
        };
        let hex: String = answer.iter().map(|byte| format!("{byte:02x}")).collect();
        self.say(
            &format!("{} bytes back, then {ended}: {hex}", answer.len()),
            &json!({ "answer": hex, "then": ended }),
        );
        self.settle();
        Ok(())
    }

    fn flood(&mut self, count: usize) -> Result<()> {
        let Some(server) = self.server() else { return Ok(()) };
        self.flood.clear();
        self.flood.extend((0..count).map_while(|_| TcpStream::connect(&server).ok()));
        let open = self.flood.len();
        self.say(&format!("{open} connections are open"), &json!({ "open": open }));
        self.settle();
        Ok(())
    }

    /// What the guest says of something comes a little after it.
    fn settle(&mut self) {
        std::thread::sleep(Duration::from_millis(500));
        self.look();
    }
}
