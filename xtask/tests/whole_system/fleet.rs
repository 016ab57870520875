//! A fleet: a relay, two gateways that share a store of spent tokens, three guests in the model, each on a host of its own, with TLS
//! between all of them.

use crate::fixture::{Fixture, sample};
use crate::hosts::Hosts;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use xtask::build::{self, program};
use xtask::guest::Guest;
use xtask::log::Log;
use xtask::privacy::{GATEWAY, ISSUER, Keys, Service, trust};

const GATEWAYS: [&str; 2] = ["gateway-1", "gateway-2"];
const GUESTS: [&str; 3] = ["guest-1", "guest-2", "guest-3"];
const ALL: [usize; 3] = [0, 1, 2];
/// What either gateway, and every guest, is called where there are names.
const GATEWAY_NAME: &str = "gateway.fleet";
const GUEST_NAME: &str = "guests.fleet";
/// The relay's path to either gateway; those to one of them are called as it is.
const EITHER: &str = "either";
/// What a machine with three guests on two CPUs and other work may need for any one thing.
const PATIENCE: Duration = Duration::from_secs(300);

struct Fleet {
    // Dropped in this order.
    guests: Vec<Guest>,
    gateways: [Option<Service>; 2],
    _relay_and_issuer: [Service; 2],
    _store: Store,
    hosts: Hosts,
    folder: PathBuf,
    log: Log,
    image_proof: String,
    keys: Keys,
}

/// A Redis server that speaks TLS.
struct Store(Child);

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A certificate for each host that needs one, below one root.
fn certificates(hosts: &Hosts, folder: &Path) {
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("roots.pem"), root.pem()).unwrap();
    for host in ["relay", "store", "issuer", GATEWAYS[0], GATEWAYS[1]] {
        let names = vec![hosts.address(host).to_string(), GATEWAY_NAME.to_owned()];
        let names = if GATEWAYS.contains(&host) { names } else { names[..1].to_vec() };
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &root).unwrap();
        fs::write(folder.join(format!("{host}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{host}.key")), key.serialize_pem()).unwrap();
    }
}

fn listen(hosts: &Hosts, folder: &Path, host: &str) -> String {
    let (address, file) = (hosts.address(host), folder.join(host).display().to_string());
    format!(
        "[listen]\naddress = \"{address}:8443\"\ntls = {{ certificate = \"{file}.pem\", key = \"{file}.key\" }}\n"
    )
}

fn store(hosts: &Hosts, folder: &Path) -> Store {
    let state = folder.join("store");
    fs::create_dir_all(&state).unwrap();
    let mut command = hosts.command("store", Path::new("redis-server"));
    command.args(["--bind", &hosts.address("store").to_string(), "--port", "0", "--tls-port", "6379"]);
    for (option, file) in [
        ("--tls-cert-file", "store.pem"),
        ("--tls-key-file", "store.key"),
        ("--tls-ca-cert-file", "roots.pem"),
    ] {
        command.arg(option).arg(folder.join(file));
    }
    // Others than this machine connect, and without a password.
    command.args([
        "--protected-mode",
        "no",
        "--tls-auth-clients",
        "no",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ]);
    command.args(["--maxmemory-policy", "noeviction", "--save", "", "--dir"]).arg(state);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("Redis starts");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("Ready to accept connections")), "Redis does not start");
    std::thread::spawn(move || lines.for_each(drop));
    Store(child)
}

fn relay(hosts: &Hosts, folder: &Path) -> Service {
    let mut text = listen(hosts, folder, "relay");
    for (path, which) in
        [(EITHER, &GATEWAYS[..]), (GATEWAYS[0], &GATEWAYS[..1]), (GATEWAYS[1], &GATEWAYS[1..])]
    {
        text += &format!("\n[[gateway]]\npath = \"/{path}\"\nurl = \"https://{GATEWAY_NAME}:8443/\"\n");
        text += &format!("roots = \"{}\"\n", folder.join("roots.pem").display());
        // Both are found by their name, where there are names.
        if path != EITHER || !hosts.are_namespaces() {
            let addresses: Vec<_> = which.iter().map(|host| hosts.address(host).to_string()).collect();
            text += &format!("addresses = {addresses:?}\n");
        }
    }
    hosts.resolve("relay", &[(GATEWAY_NAME, &GATEWAYS)]);
    let config = folder.join("relay.toml");
    fs::write(&config, text).unwrap();
    let mut relay = hosts.command("relay", &program("cloister-relay").unwrap());
    Service::start(relay.arg("--config").arg(config)).unwrap()
}

fn issuer(hosts: &Hosts, folder: &Path) -> Service {
    let config = folder.join("issuer/issuer.toml");
    let text = fs::read_to_string(&config).unwrap() + "\n" + &listen(hosts, folder, "issuer");
    fs::write(&config, text).unwrap();
    let mut issuer = hosts.command("issuer", &program("cloister-issuer").unwrap());
    Service::start(issuer.arg("serve").arg("--folder").arg(folder.join("issuer"))).unwrap()
}

impl Fleet {
    fn start() -> Self {
        let fixture = Fixture::get();
        xtask::setup::for_stores().unwrap();
        let folder = build::target().unwrap().join("whole-system/fleet");
        let log = Log::start(&folder).unwrap();
        let image_proof = log.publish(&fixture.folder).unwrap().display().to_string();
        let keys = Keys::make(&folder, &log).unwrap();
        let [first, second] = GATEWAYS;
        let [one, two, three] = GUESTS;
        let hosts = Hosts::new(&["client", "relay", "issuer", "store", first, second, one, two, three]);
        certificates(&hosts, &folder);
        let mut fleet = Self {
            guests: Vec::new(),
            gateways: [None, None],
            _relay_and_issuer: [relay(&hosts, &folder), issuer(&hosts, &folder)],
            _store: store(&hosts, &folder),
            hosts,
            folder,
            log,
            image_proof,
            keys,
        };
        for number in ALL {
            let guest = fleet.boot(number);
            fleet.guests.push(guest);
        }
        fleet.list(&ALL);
        (0..2).for_each(|number| fleet.start_gateway(number));
        let policy = fleet.log.policy("0.1.0", &fixture.root()).unwrap();
        let policy = fs::read_to_string(policy).unwrap();
        for path in [EITHER, first, second] {
            fs::write(fleet.policy(path), policy.clone() + &fleet.way(path)).unwrap();
        }
        fleet.until_guests(3, 3);
        fleet
    }

    fn policy(&self, path: &str) -> PathBuf {
        self.folder.join(format!("policy-{path}.toml"))
    }

    /// `[way]` and `[tokens]` of a client that takes this path of the relay's. All have one wallet.
    fn way(&self, path: &str) -> String {
        let (folder, Keys { issuer_proof, gateway_proof }) = (self.folder.display(), &self.keys);
        format!(
            "\n[way]\nrelay = \"https://{}:8443/{path}\"\nrelay_roots = \"roots.pem\"\ngateway = \"{GATEWAY}\"\n\
             key_mirrors = [\"{}\"]\nfloors = \"client-floors.json\"\n\n[tokens]\nissuer = \"https://{}:8443\"\n\
             issuer_name = \"{ISSUER}\"\ngateway = \"{GATEWAY}\"\ncredential = \"{folder}/credential\"\n\
             wallet = \"{folder}/wallet.json\"\nkey_mirrors = [\"{}\"]\nfloors = \"{folder}/client-issuer-floors.json\"\n",
            self.hosts.address("relay"),
            gateway_proof.display(),
            self.hosts.address("issuer"),
            issuer_proof.display(),
        )
    }

    fn start_gateway(&mut self, number: usize) {
        let host = GATEWAYS[number];
        let mut gateway = self.hosts.command(host, &program("cloister-gateway").unwrap());
        // The root of the store's certificate.
        gateway.env("SSL_CERT_FILE", self.folder.join("roots.pem"));
        let started = Service::start(gateway.arg("serve").arg("--config").arg(self.gateway_file(host)));
        self.gateways[number] = Some(started.unwrap());
    }

    fn gateway_file(&self, host: &str) -> PathBuf {
        self.folder.join(format!("{host}.toml"))
    }

    /// Makes these the guests that gateways find: by their name, and where there are no names, in the gateways' files.
    fn list(&self, guests: &[usize]) {
        let hosts: Vec<&str> = guests.iter().map(|number| GUESTS[*number]).collect();
        let addresses: Vec<String> =
            hosts.iter().map(|host| format!("{}:8443", self.hosts.address(host))).collect();
        let names = if self.hosts.are_namespaces() { vec![format!("{GUEST_NAME}:8443")] } else { addresses };
        let trust = trust(&self.log, &[("issuer-key", ISSUER, "token-issuer")], None).unwrap();
        for host in GATEWAYS {
            self.hosts.resolve(host, &[(GUEST_NAME, &hosts)]);
            let (at, store) = (self.hosts.address(host), self.hosts.address("store"));
            let text = format!(
                "name = \"{GATEWAY}\"\nkeys = \"keys\"\nguests = {names:?}\n\n{}metrics = \"{at}:9090\"\n\n[tokens]\n\
                 issuer = \"{ISSUER}\"\nkey_mirrors = [\"{}\"]\nfloors = \"{host}-floors.json\"\nspent = \"rediss://{store}:6379\"\n\n{trust}",
                listen(&self.hosts, &self.folder, host),
                self.keys.issuer_proof.display()
            );
            fs::write(self.gateway_file(host), text).unwrap();
        }
        if !self.hosts.are_namespaces() {
            self.gateways.iter().flatten().for_each(|gateway| gateway.signal(Signal::HUP).unwrap());
        }
    }

    fn boot(&self, number: usize) -> Guest {
        let (fixture, host) = (Fixture::get(), GUESTS[number]);
        let launcher = self.hosts.command(host, &program("cloister-launch").unwrap());
        let weights = build::weights();
        let start = fixture.start(&weights, &fixture.state(), &["--proof", &self.image_proof]);
        let at = format!("{}:8443", self.hosts.address(host));
        let mut guest = Guest::start_at(launcher, at, &start).unwrap();
        guest.wait_for("listening", PATIENCE).unwrap();
        guest
    }

    /// A gateway's number of this name.
    fn number(&self, gateway: &str, name: &str) -> Option<u64> {
        let at = format!("{}:9090", self.hosts.address(gateway));
        let text = self.hosts.get(gateway, &at, "/metrics").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("cloister_gateway_{name} ")))?;
        line.parse().ok()
    }

    fn until_guests(&self, up: u64, all: u64) {
        for gateway in GATEWAYS {
            until(&format!("{up} of {all} guests at {gateway}"), || {
                let found = [self.number(gateway, "guests_up")?, self.number(gateway, "guests")?];
                (found == [up, all]).then_some(())
            });
        }
    }

    /// `cloister` on the client's host.
    fn client(&self, words: &[&str], path: &str) -> Command {
        let mut client = self.hosts.command("client", &program("cloister").unwrap());
        client.args(words).arg("--policy").arg(self.policy(path)).arg("--timeout").arg("200");
        // The root of the issuer's certificate.
        client.env("SSL_CERT_FILE", self.folder.join("roots.pem")).stdin(Stdio::null());
        client
    }

    /// An attested session, and nothing in it.
    fn verify(&self, path: &str) -> Output {
        self.client(&["verify"], path).output().unwrap()
    }

    /// Sessions until this guest has issued evidence that a client accepted.
    fn until_evidence_of(&mut self, number: usize) {
        self.guests[number].news();
        until("a session with each guest", || {
            let good = self.verify(EITHER);
            assert!(good.status.success(), "{}", said(&good));
            self.guests[number].news().iter().any(|line| line.contains("fresh evidence")).then_some(())
        });
    }

    fn summarize(&self, path: &str) -> Answer {
        let chat = sample().display().to_string();
        let mut client = self.client(&["summarize", &chat, "--last", "12"], path);
        let mut process = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut out, mut err) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
        let (sender, text) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(length @ 1..) = out.read(&mut buffer) {
                let _ = sender.send(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        });
        let (sender, complaint) = channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = err.read_to_string(&mut text);
            let _ = sender.send(text);
        });
        Answer { process, text, complaint }
    }

    /// The guests that have taken on requests since this was asked last, once for each.
    fn at_work(&mut self) -> Vec<usize> {
        let started = |guest: &mut Guest| {
            guest.news().iter().filter(|line| line.contains("a request was started")).count()
        };
        ALL.iter().flat_map(|number| vec![*number; started(&mut self.guests[*number])]).collect()
    }

    /// The guest that took on the only request.
    fn serving(&mut self) -> usize {
        until("a request at work", || self.at_work().first().copied())
    }
}

/// A summary that is under way.
struct Answer {
    process: Child,
    text: Receiver<String>,
    complaint: Receiver<String>,
}

impl Answer {
    fn begins(&self) -> String {
        self.text.recv_timeout(PATIENCE).expect("an answer begins")
    }

    fn end(mut self) -> (ExitStatus, String) {
        let status = until("the end of an answer", || self.process.try_wait().unwrap());
        (status, self.complaint.recv_timeout(PATIENCE).unwrap())
    }

    fn succeeds(self) {
        let (status, complaint) = self.end();
        assert!(status.success(), "{status}: {complaint}");
    }

    /// It broke off, and the person is told so, and what to do.
    fn breaks_off(self) {
        let (status, complaint) = self.end();
        assert_eq!(status.code(), Some(8), "{complaint}");
        assert!(complaint.contains("try again"), "{complaint}");
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_fleet_loses_guests_and_gateways_and_goes_on() {
    let mut fleet = Fleet::start();
    let [first, second] = GATEWAYS;
    let wallet = fleet.folder.join("wallet.json");

    // Every guest is used, through either gateway; a token that one gateway took, the other one refuses.
    ALL.iter().for_each(|number| fleet.until_evidence_of(*number));
    for (path, other) in [(first, second), (second, first)] {
        let before = fs::read(&wallet).unwrap();
        let good = fleet.verify(path);
        assert!(good.status.success(), "{}", said(&good));
        let after = fs::read(&wallet).unwrap();
        fs::write(&wallet, before).unwrap();
        let spent = fleet.verify(other);
        assert_eq!(spent.status.code(), Some(5), "{}", said(&spent));
        assert!(said(&spent).contains("did not take the token"), "{}", said(&spent));
        assert_eq!(fs::read(&wallet).unwrap(), after);
    }

    // Drained for an upgrade: a guest that left its name gets no new session, and the one that it has ends in peace. It stands still
    // meanwhile, so that the answer is surely under way.
    fleet.at_work();
    let answer = fleet.summarize(EITHER);
    answer.begins();
    let drained = fleet.serving();
    fleet.guests[drained].signal(Signal::STOP).unwrap();
    let left: Vec<usize> = ALL.into_iter().filter(|number| *number != drained).collect();
    fleet.list(&left);
    fleet.until_guests(2, 2);
    fleet.guests[drained].signal(Signal::CONT).unwrap();
    fleet.guests[drained].news();
    for _ in 0..4 {
        let good = fleet.verify(EITHER);
        assert!(good.status.success(), "{}", said(&good));
    }
    answer.succeeds();
    assert!(!fleet.guests[drained].news().iter().any(|line| line.contains("connection was opened")));
    assert!(fleet.guests[drained].stop().unwrap().success());
    // The new one has new keys under the old address: clients attest it anew.
    fleet.guests[drained] = fleet.boot(drained);
    fleet.list(&ALL);
    fleet.until_guests(3, 3);
    fleet.until_evidence_of(drained);

    // One guest is killed in mid-answer. Its own clients are told so; nobody else notices.
    fleet.at_work();
    let answers = [fleet.summarize(first), fleet.summarize(second)];
    let mut working = Vec::new();
    until("two requests at work", || {
        working.extend(fleet.at_work());
        (working.len() == 2).then_some(())
    });
    let lost = working[0];
    fleet.guests[lost].signal(Signal::KILL).unwrap();
    let (mut broken, mut whole) = (0, 0);
    for answer in answers {
        let (status, complaint) = answer.end();
        match status.code() {
            Some(0) => whole += 1,
            Some(8) if complaint.contains("try again") => broken += 1,
            other => panic!("{other:?}: {complaint}"),
        }
    }
    let its_own = working.iter().filter(|number| **number == lost).count();
    assert_eq!((broken, whole), (its_own, 2 - its_own));
    // What people are told to do helps, at the first attempt: gateways pass over a guest that does not take connections.
    let answers = [fleet.summarize(first), fleet.summarize(second)];
    answers.into_iter().for_each(Answer::succeeds);
    fleet.until_guests(2, 3);
    assert!(!fleet.at_work().contains(&lost));
    fleet.guests[lost] = fleet.boot(lost);
    fleet.until_guests(3, 3);
    fleet.until_evidence_of(lost);

    // One gateway is killed in mid-answer: its sessions end, and the relay finds the other one.
    let answer = fleet.summarize(first);
    answer.begins();
    let before = fs::read(&wallet).unwrap();
    assert!(fleet.verify(first).status.success());
    drop(fleet.gateways[0].take());
    answer.breaks_off();
    for _ in 0..4 {
        let good = fleet.verify(EITHER);
        assert!(good.status.success(), "{}", said(&good));
    }
    let gone = fleet.verify(first);
    assert_eq!(gone.status.code(), Some(5), "{}", said(&gone));
    // What it took stays taken, there and here.
    let after = fs::read(&wallet).unwrap();
    fs::write(&wallet, &before).unwrap();
    let spent = fleet.verify(second);
    assert!(said(&spent).contains("did not take the token"), "{}", said(&spent));
    fleet.start_gateway(0);
    fs::write(&wallet, before).unwrap();
    let spent = fleet.verify(first);
    assert!(said(&spent).contains("did not take the token"), "{}", said(&spent));
    fs::write(&wallet, after).unwrap();
    fleet.summarize(first).succeeds();

    // A guest whose host vanishes without a word is found out by those who wait for it.
    if fleet.hosts.are_namespaces() {
        fleet.at_work();
        let answer = fleet.summarize(second);
        answer.begins();
        let lost = fleet.serving();
        fleet.hosts.unplug(GUESTS[lost]);
        answer.breaks_off();
        fleet.summarize(second).succeeds();
    }
}
