//! Redis and PostgreSQL servers of this machine, each in a folder of its own, that can be killed and started again.

#![allow(dead_code, reason = "each program uses its part")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// With this set, as in CI once they are installed, a server that is missing fails the test.
const REQUIRED: &str = "CLOISTER_STORES";
const PATIENCE: Duration = Duration::from_secs(60);

fn missing(what: &str) {
    assert!(std::env::var_os(REQUIRED).is_none(), "{what} is not installed, and {REQUIRED} says that it is");
    eprintln!("NOT RUN: {what} is not installed (Debian: redis-server, postgresql)");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what} did not come up");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server of a store.
pub trait Server {
    /// The store's URL.
    fn url(&self) -> String;
    /// `kill -9`.
    fn kill(&mut self);
    /// Starts it and waits until it answers.
    fn start(&mut self);
}

/// A Redis server.
pub struct Redis {
    folder: TempDir,
    port: u16,
    settings: Vec<&'static str>,
    child: Option<Child>,
    /// Where its second port is, if it has one for TLS.
    tls_port: Option<u16>,
}

/// Settings that keep what was written.
pub const DURABLE: [&str; 6] =
    ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"];

impl Redis {
    /// Starts one with these settings; none if it is not installed.
    pub fn new(settings: &[&'static str]) -> Option<Self> {
        if server_name().is_none() {
            missing("redis-server");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut server =
            Self { folder, port: free_port(), settings: settings.into(), child: None, tls_port: None };
        server.start();
        Some(server)
    }

    /// The same behind a certificate for 127.0.0.1, whose root is in `root.pem` of the folder.
    pub fn with_tls(mut self) -> Self {
        use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &root);
        for (file, text) in [
            ("root.pem", root.pem()),
            ("server.pem", server.unwrap().pem()),
            ("server.key", key.serialize_pem()),
        ] {
            std::fs::write(self.folder.path().join(file), text).unwrap();
        }
        self.kill();
        self.tls_port = Some(free_port());
        self.start();
        self
    }

    /// The root of its certificate.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }
}

fn server_name() -> Option<&'static str> {
    let there = |name: &&str| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    ["redis-server", "valkey-server"].into_iter().find(there)
}

impl Server for Redis {
    fn url(&self) -> String {
        match self.tls_port {
            Some(port) => format!("rediss://127.0.0.1:{port}"),
            None => format!("redis://127.0.0.1:{}", self.port),
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn start(&mut self) {
        let mut command = Command::new(server_name().unwrap());
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &self.port.to_string(), "--dir"]);
        command.arg(self.folder.path()).args(&self.settings).stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(port) = self.tls_port {
            let file = |name: &str| self.folder.path().join(name);
            command.args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no", "--tls-cert-file"]);
            command.arg(file("server.pem")).arg("--tls-key-file").arg(file("server.key"));
            command.arg("--tls-ca-cert-file").arg(file("root.pem"));
        }
        self.child = Some(command.spawn().unwrap());
        let address = format!("127.0.0.1:{}", self.port);
        until("Redis", || {
            let mut stream = TcpStream::connect(&address).ok()?;
            stream.write_all(b"PING\r\n").ok()?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).ok()?;
            (answer == *b"+PONG").then_some(())
        });
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A PostgreSQL server.
pub struct Postgres {
    folder: PathBuf,
    programs: PathBuf,
    port: u16,
    settings: Vec<&'static str>,
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// PostgreSQL does not run as root; as Debian's user of that name, then.
fn as_user(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

impl Postgres {
    /// Starts one with these settings, each `name=value`; none if it is not installed.
    pub fn new(settings: &[&'static str]) -> Option<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let programs =
            versions.map(|version| version.path().join("bin")).find(|bin| bin.join("initdb").exists());
        let Some(programs) = programs else {
            missing("postgresql");
            return None;
        };
        let made =
            as_user(Path::new("mktemp")).args(["-d", "/tmp/cloister-postgres-XXXXXX"]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let folder = PathBuf::from(String::from_utf8(made.stdout).unwrap().trim());
        let mut initdb = as_user(&programs.join("initdb"));
        initdb.args(["--auth=trust", "--username=cloister", "--no-sync", "-D"]).arg(folder.join("data"));
        let made = initdb.current_dir("/").output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = Self { folder, programs, port: free_port(), settings: settings.into() };
        server.start();
        Some(server)
    }

    /// The server's process, as it says itself.
    fn process(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()?;
        text.lines().next().map(str::to_owned)
    }

    /// Runs SQL.
    pub fn sql(&self, text: &str) -> bool {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args([
            "-h",
            "127.0.0.1",
            "-U",
            "cloister",
            "-d",
            "postgres",
            "-c",
            text,
            "-p",
            &self.port.to_string(),
        ]);
        psql.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("data/server.log")).unwrap_or_default()
    }
}

impl Server for Postgres {
    fn url(&self) -> String {
        format!("postgres://cloister@127.0.0.1:{}/postgres", self.port)
    }

    fn kill(&mut self) {
        let Some(process) = self.process() else { return };
        let there =
            || Command::new("kill").args(["-0", &process]).stderr(Stdio::null()).status().unwrap().success();
        let _ = Command::new("kill").args(["-9", &process]).stderr(Stdio::null()).status();
        until("the end of PostgreSQL", || (!there()).then_some(()));
    }

    fn start(&mut self) {
        // Its children notice the end of the first process, and hold its memory until then: `pg_ctl` is tried again.
        until("PostgreSQL", || {
            let mut start = as_user(&self.programs.join("pg_ctl"));
            let mut options =
                format!("-p {} -k {} -c listen_addresses=127.0.0.1", self.port, self.folder.display());
            for setting in &self.settings {
                options += &format!(" -c {setting}");
            }
            start.args(["start", "-w", "-s", "-t", "30", "-o", &options, "-D"]).arg(self.folder.join("data"));
            start.arg("-l").arg(self.folder.join("data/server.log")).current_dir("/");
            let started =
                start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            (started.success() && self.sql("SELECT 1")).then_some(())
        });
        assert!(self.process().is_some(), "{}", self.log());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
