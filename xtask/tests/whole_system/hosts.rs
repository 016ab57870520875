//! Hosts on this machine: network namespaces (`ip netns`) on one switch where this user may make them, and otherwise addresses of the
//! loopback interface.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What namespaces of these tests begin with; the number of the process that made them follows.
const PREFIX: &str = "cloister-fleet-";
const SWITCH: &str = "switch";

/// Hosts, each with an address and a list of names of its own.
pub struct Hosts {
    names: Vec<&'static str>,
    /// What the namespaces of this process begin with; `None` on the loopback interface.
    prefix: Option<String>,
}

impl Hosts {
    /// Hosts of these names, and says on standard error of what kind they are.
    pub fn new(names: &[&'static str]) -> Self {
        let mut hosts =
            Self { names: names.into(), prefix: Some(format!("{PREFIX}{}-", std::process::id())) };
        remove_leftovers();
        let made =
            xtask::setup::for_hosts().map_err(|error| format!("{error:#}")).and_then(|()| hosts.make());
        match made {
            Ok(()) => eprintln!("hosts: {} network namespaces", names.len()),
            Err(why) => {
                hosts.remove();
                hosts.prefix = None;
                eprintln!(
                    "hosts: {} addresses of this one, as it makes no network namespaces: {why}",
                    names.len()
                );
            }
        }
        hosts
    }

    fn make(&self) -> Result<(), String> {
        let switch = self.namespace(SWITCH);
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "bridge", "up"])?;
        for name in &self.names {
            let (space, address) = (self.namespace(name), format!("{}/24", self.address(name)));
            ip(&["netns", "add", &space])?;
            ip(&[
                "-n", &switch, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", &space,
            ])?;
            ip(&["-n", &switch, "link", "set", name, "master", "bridge", "up"])?;
            ip(&["-n", &space, "address", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            self.write_names(name, &[]).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}{name}", self.prefix.as_deref().unwrap_or_default())
    }

    /// Whether they are namespaces, in which names resolve as [`Self::resolve`] says.
    pub fn are_namespaces(&self) -> bool {
        self.prefix.is_some()
    }

    /// A host's address.
    pub fn address(&self, name: &str) -> Ipv4Addr {
        let number = self.names.iter().position(|known| *known == name).expect("a host of this name");
        let number = u8::try_from(number + 2).unwrap();
        if self.are_namespaces() {
            Ipv4Addr::new(10, 77, 0, number)
        } else {
            Ipv4Addr::new(127, 0, 77, number)
        }
    }

    /// A command that runs a program on a host.
    pub fn command(&self, host: &str, program: &Path) -> Command {
        if !self.are_namespaces() {
            return Command::new(program);
        }
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host)]).arg(program);
        command
    }

    /// Says to which hosts each name resolves on this host from now on. Without namespaces, nothing.
    pub fn resolve(&self, host: &str, names: &[(&str, &[&str])]) {
        if self.are_namespaces() {
            self.write_names(host, names).unwrap();
        }
    }

    fn write_names(&self, host: &str, names: &[(&str, &[&str])]) -> io::Result<()> {
        let folder = self.files(host);
        fs::create_dir_all(&folder)?;
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for (name, hosts) in names {
            hosts.iter().for_each(|host| text += &format!("{} {name}\n", self.address(host)));
        }
        // In place: `ip netns exec` mounts the file itself.
        fs::write(folder.join("hosts"), text)
    }

    /// What `ip netns exec` mounts over `/etc` (ip-netns(8)).
    fn files(&self, host: &str) -> PathBuf {
        Path::new("/etc/netns").join(self.namespace(host))
    }

    /// Takes the cable out of a host; nothing tells those whom it talks to.
    pub fn unplug(&self, host: &str) {
        ip(&["-n", &self.namespace(SWITCH), "link", "set", host, "down"]).unwrap();
    }

    /// The body of a plain HTTP resource, as a host sees it.
    pub fn get(&self, host: &str, at: &str, path: &str) -> io::Result<String> {
        let look = || -> io::Result<String> {
            if self.are_namespaces() {
                let space = fs::File::open(Path::new("/run/netns").join(self.namespace(host)))?;
                move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
            }
            let mut stream = TcpStream::connect(at)?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
        };
        // A thread of its own, as it does not come back from the namespace.
        std::thread::scope(|scope| scope.spawn(look).join().unwrap())
    }

    fn remove(&self) {
        for name in self.names.iter().chain([&SWITCH]) {
            remove(&self.namespace(name));
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if self.are_namespaces() {
            self.remove();
        }
    }
}

fn remove(namespace: &str) {
    let _ = ip(&["netns", "delete", namespace]);
    let _ = fs::remove_dir_all(Path::new("/etc/netns").join(namespace));
}

/// Namespaces of processes that were killed before they could clean up.
fn remove_leftovers() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        if maker.is_some_and(|(process, _)| !Path::new("/proc").join(process).exists()) {
            remove(&name);
        }
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let output =
        Command::new("ip").args(words).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
