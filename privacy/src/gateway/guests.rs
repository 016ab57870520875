//! Which guest serves a session (REQUIREMENTS C7): the choice sees the guests and chance, and nothing of any request.

use super::slices::Slices;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// How long a guest may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Most guests that names may resolve to.
const MAX_GUESTS: usize = 1024;

/// A guest's address and state.
#[derive(Debug)]
struct Guest {
    address: SocketAddr,
    /// Whether it accepted its last connection.
    up: AtomicBool,
    sessions: AtomicUsize,
}

/// A session's claim on its guest.
#[derive(Debug)]
pub struct Claim(Arc<Guest>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Relaxed);
    }
}

/// All guests: those that the names resolve to now, and those that Kubernetes lists. One that has left its name or list is drained:
/// it keeps its sessions and gets no new ones.
#[derive(Debug, Default)]
pub struct Guests {
    names: RwLock<Vec<String>>,
    slices: Option<Slices>,
    /// What the slices said last.
    listed: RwLock<BTreeSet<SocketAddr>>,
    /// Whether the slices could not be read the last time: said once.
    is_blind: AtomicBool,
    known: RwLock<Vec<Arc<Guest>>>,
}

impl Guests {
    /// Guests at these `HOST:PORT`.
    pub fn new(names: Vec<String>) -> Self {
        Self { names: RwLock::new(names), ..Self::default() }
    }

    /// And those of these slices.
    #[must_use]
    pub fn with_slices(self, slices: Slices) -> Self {
        Self { slices: Some(slices), ..self }
    }

    /// Replaces the names, from the next [`Self::probe`] on.
    pub fn rename(&self, names: Vec<String>) {
        if let Ok(mut all) = self.names.write() {
            *all = names;
        }
    }

    /// Resolves the names, asks Kubernetes, and tries a connection to each guest. A name that does not resolve keeps nobody out whom
    /// another one names; if none does, and Kubernetes does not answer, the guests stay as they were.
    pub async fn probe(&self) {
        let names = self.names.read().map(|names| names.clone()).unwrap_or_default();
        let mut addresses = BTreeSet::new();
        for name in names {
            if let Ok(Ok(found)) = timeout(CONNECT, lookup_host(&name)).await {
                addresses.extend(found.take(MAX_GUESTS));
            }
        }
        let is_listed = self.look_at_slices().await;
        addresses.extend(self.listed.read().map(|listed| listed.clone()).unwrap_or_default());
        if (is_listed || !addresses.is_empty())
            && let Ok(mut known) = self.known.write()
        {
            let mut old = std::mem::take(&mut *known);
            *known = addresses
                .into_iter()
                .take(MAX_GUESTS)
                .map(|address| match old.iter().position(|guest| guest.address == address) {
                    Some(index) => old.swap_remove(index),
                    None => {
                        Arc::new(Guest { address, up: AtomicBool::new(true), sessions: AtomicUsize::new(0) })
                    }
                })
                .collect();
        }
        let probes: Vec<_> = self
            .all()
            .into_iter()
            .map(|guest| {
                tokio::spawn(async move {
                    let reached = timeout(CONNECT, TcpStream::connect(guest.address)).await;
                    guest.up.store(matches!(reached, Ok(Ok(_))), Relaxed);
                })
            })
            .collect();
        for probe in probes {
            let _ = probe.await;
        }
    }

    /// Asks Kubernetes again; whether it said who is there. If not, what it said before holds.
    async fn look_at_slices(&self) -> bool {
        let Some(slices) = &self.slices else { return false };
        match slices.list().await {
            Ok(found) => {
                if self.is_blind.swap(false, Relaxed) {
                    eprintln!("the guests are listed again");
                }
                self.listed.write().map(|mut listed| *listed = found).is_ok()
            }
            Err(error) => {
                if !self.is_blind.swap(true, Relaxed) {
                    eprintln!("error: {error}; the guests that were listed before stay in use");
                }
                false
            }
        }
    }

    fn all(&self) -> Vec<Arc<Guest>> {
        self.known.read().map(|known| known.clone()).unwrap_or_default()
    }

    /// Guests that are up, and all.
    pub fn count(&self) -> (usize, usize) {
        let all = self.all();
        (all.iter().filter(|guest| guest.up.load(Relaxed)).count(), all.len())
    }

    /// Connects to a guest: of two that chance picks, the one with fewer sessions; if it cannot be reached, another one.
    pub async fn connect(&self) -> Option<(TcpStream, Claim)> {
        loop {
            let up: Vec<_> = self.all().into_iter().filter(|guest| guest.up.load(Relaxed)).collect();
            let guest = choose(&up, draw()?)?.clone();
            guest.sessions.fetch_add(1, Relaxed);
            let claim = Claim(guest.clone());
            match timeout(CONNECT, TcpStream::connect(guest.address)).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    let _ = crate::keepalive::watch(&stream);
                    return Some((stream, claim));
                }
                _ => guest.up.store(false, Relaxed),
            }
        }
    }
}

/// The choice: two by chance, and of these the one with fewer sessions. What could depend on a request is not here to see.
fn choose(up: &[Arc<Guest>], random: [u64; 2]) -> Option<&Arc<Guest>> {
    let pick = |random: u64| up.get(usize::try_from(random.checked_rem(up.len() as u64)?).ok()?);
    let [first, second] = random.map(pick);
    [first?, second?].into_iter().min_by_key(|guest| guest.sessions.load(Relaxed))
}

fn draw() -> Option<[u64; 2]> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    let (first, second) = bytes.split_first_chunk::<8>()?;
    Some([u64::from_le_bytes(*first), u64::from_le_bytes(second.try_into().ok()?)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guests(sessions: &[usize]) -> Vec<Arc<Guest>> {
        let guest = |(index, sessions): (usize, &usize)| {
            let address = SocketAddr::from(([127, 0, 0, 1], index as u16 + 1));
            Arc::new(Guest { address, up: AtomicBool::new(true), sessions: AtomicUsize::new(*sessions) })
        };
        sessions.iter().enumerate().map(guest).collect()
    }

    #[test]
    fn c7_every_guest_is_chosen_and_the_busy_one_less() {
        let even = guests(&[0, 0, 0]);
        let mut counts = [0_u32; 3];
        for _ in 0..30_000 {
            let port = choose(&even, draw().unwrap()).unwrap().address.port();
            counts[usize::from(port) - 1] += 1;
        }
        // Equal sessions: the first of the two draws decides, which is uniform. Twelve standard deviations are allowed.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 1_000), "{counts:?}");

        let uneven = guests(&[5, 0, 0]);
        let busy =
            (0..9_000).filter(|_| choose(&uneven, draw().unwrap()).unwrap().address.port() == 1).count();
        assert!((500..1_500).contains(&busy), "{busy}: only where both draws fall on it");
        assert!(choose(&[], [1, 2]).is_none());
    }

    #[tokio::test]
    async fn who_cannot_be_reached_is_passed_over_until_it_returns() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let names = [&listener, &gone].map(|l| l.local_addr().unwrap().to_string()).to_vec();
        let gone_at = gone.local_addr().unwrap();
        let all = Guests::new(names.clone());
        all.probe().await;
        assert_eq!(all.count(), (2, 2));
        drop(gone);
        for _ in 0..20 {
            let (stream, _) = all.connect().await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        }
        assert_eq!(all.count(), (1, 2));
        let _back = tokio::net::TcpListener::bind(gone_at).await.unwrap();
        all.probe().await;
        assert_eq!(all.count(), (2, 2));
        // Drained: no new sessions, and a claim that is held does no harm.
        let held = all.connect().await.unwrap();
        all.rename(names[..1].to_vec());
        all.probe().await;
        assert_eq!(all.count(), (1, 1));
        drop(held);
    }
}
