//! Where a gateway is: the addresses of its name, in an order that chance draws for each connection.
//!
//! Gateways keep nothing between exchanges, so whichever answers will do: exchanges spread over all of them, and one that does not
//! take connections is passed over, before anything was sent to it.

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec;
use tower_service::Service;

/// Looks a gateway up.
#[derive(Clone)]
pub(super) struct Addresses {
    /// In place of those that the name has.
    given: Arc<[IpAddr]>,
    system: GaiResolver,
}

impl Addresses {
    /// Those `given`; if there are none, those of the name.
    pub(super) fn new(given: &[IpAddr]) -> Self {
        Self { given: given.into(), system: GaiResolver::new() }
    }
}

impl Service<Name> for Addresses {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let given = self.given.clone();
        let looked_up = given.is_empty().then(|| self.system.call(name));
        Box::pin(async move {
            let found = match looked_up {
                Some(looked_up) => looked_up.await?.collect(),
                // The port is the URL's: 0 leaves it to who connects.
                None => given.iter().map(|address| SocketAddr::new(*address, 0)).collect(),
            };
            Ok(shuffled(found)?.into_iter())
        })
    }
}

fn shuffled(addresses: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    let mut drawn = Vec::with_capacity(addresses.len());
    for address in addresses {
        let mut ticket = [0; 8];
        aws_lc_rs::rand::fill(&mut ticket).map_err(|_| io::Error::other("no randomness"))?;
        drawn.push((ticket, address));
    }
    drawn.sort_unstable();
    Ok(drawn.into_iter().map(|(_, address)| address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_gateway_of_a_name_comes_first_as_often_as_the_others() {
        let given: Vec<IpAddr> = (1..=4).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        let mut addresses = Addresses::new(&given);
        let mut first = [0_u32; 4];
        for _ in 0..4_000 {
            let found: Vec<_> = addresses.call("gateway.example".parse().unwrap()).await.unwrap().collect();
            let mut all: Vec<_> = found.iter().map(SocketAddr::ip).collect();
            first[given.iter().position(|address| *address == all[0]).unwrap()] += 1;
            all.sort_unstable();
            assert_eq!(all, given);
        }
        // Eighteen standard deviations are allowed.
        assert!(first.iter().all(|count| count.abs_diff(1_000) < 500), "{first:?}");

        let mut named = Addresses::new(&[]);
        let found: Vec<_> = named.call("localhost".parse().unwrap()).await.unwrap().collect();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
    }
}
